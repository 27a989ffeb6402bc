"""Copy the embedded models' measured accuracy into the package: `python benchmarks/embed.py`.

From results/accuracy.json and results/detector.json to posekit/models/accuracy.json, which
`posekit models` quotes.
"""

import json
from pathlib import Path
from typing import Any

from results_file import FOLDER

TARGET = Path(__file__).resolve().parents[1] / "posekit" / "models" / "accuracy.json"


def embedded() -> dict[str, Any]:
    """What the package should say."""
    pose = json.loads((FOLDER / "accuracy.json").read_text())
    found = json.loads((FOLDER / "detector.json").read_text())
    person = {"coco_val": {"AP50": round(found["figures"]["coco_val_one_look"]["ap50"], 3)}}
    return {
        "measured": [{key: each[key] for key in ("command", "machine")} for each in (pose, found)],
        "models": {**pose["figures"], "nanodet-person": person},
    }


def main() -> None:
    TARGET.write_text(json.dumps(embedded(), indent=1) + "\n")


if __name__ == "__main__":
    main()
