"""Change files and use them: `python -m tests.fuzz KIND --seed S --count N`, or `--only NUMBER`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.fuzz import kinds
from tests.fuzz.run import commands, fuzz


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=kinds.KINDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--only", type=int, help="this file alone, in this process")
    parser.add_argument("--folder", type=Path, help="where the files lie; else a temporary one")
    parser.add_argument("--commands", type=int, default=0, help="accepted files for `posekit`")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    if options.only is not None:
        path = kinds.changed(options.kind, options.seed, options.only, folder)
        print(path, flush=True)
        kinds.use(options.kind, path, folder)
        return
    last = options.first + options.count
    report = fuzz(options.kind, range(options.first, last), folder, options.seed)
    print(report.text())
    for wrong in commands(report, options.commands, folder).values():
        print(wrong)


if __name__ == "__main__":
    main()
