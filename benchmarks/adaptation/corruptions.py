"""Synthetic corruptions of a folder of images: `python -m benchmarks corruptions dark IN OUT`.

With `--annotations coco.json` the labels are written beside the images. tests/synthetic/corruptions
has what each imitates.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.synthetic.corruptions import CORRUPTIONS, corrupt_folder


def main() -> None:
    """Corrupt a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corruption", choices=CORRUPTIONS)
    parser.add_argument("images", type=Path, help="a folder")
    parser.add_argument("out", type=Path, help="a folder, created where it is missing")
    parser.add_argument("--annotations", type=Path, help="COCO JSON of the images")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    count = corrupt_folder(
        options.corruption,
        options.images,
        options.out,
        seed=options.seed,
        annotations=options.annotations,
    )
    print(f"{count} images, {options.corruption}, seed {options.seed}: {options.out}")


if __name__ == "__main__":
    main()
