"""Copy the embedded models' measured accuracy into the package: `python -m benchmarks embed`.

From results/accuracy.json and results/detector.json to posekit/models/accuracy.json, which
`posekit models` quotes.
"""

import argparse
import json
import sys
from typing import Any

from benchmarks.results_file import ROOT, load

TARGET = ROOT / "posekit" / "models" / "accuracy.json"


def embedded() -> dict[str, Any]:
    """The content of the package's file."""
    pose, found = load("accuracy"), load("detector")
    if pose is None or found is None:
        sys.exit("run `python -m benchmarks accuracy` and `detector` first")
    person = {"coco_val": {"AP50": round(found["figures"]["coco_val_one_look"]["ap50"], 3)}}
    return {
        "measured": [{key: each[key] for key in ("command", "machine")} for each in (pose, found)],
        "models": {**pose["figures"], "nanodet-person": person},
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    TARGET.write_text(json.dumps(embedded(), indent=1) + "\n")


if __name__ == "__main__":
    main()
