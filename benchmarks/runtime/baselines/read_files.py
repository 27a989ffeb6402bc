"""Reads posekit's files with the packages that they are for; run by the program `readers`.

In the environment of these packages: `python read_files.py PACKAGE FOLDER` prints a line of JSON.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import sys
import types
from importlib.metadata import version
from pathlib import Path
from typing import Any

LABELS = """<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="box" toName="image"><Label value="person"/></RectangleLabels>
  <KeyPointLabels name="keypoints" toName="image">{names}</KeyPointLabels>
</View>"""


def pose2sim(folder: Path) -> dict[str, Any]:
    """Its calibration, association of persons and triangulation in the project `folder`."""
    spec = importlib.util.find_spec("Pose2Sim")
    assert spec is not None
    assert spec.origin is not None
    demo = Path(spec.origin).parent / "Demo_SinglePerson"
    text = (demo / "Config.toml").read_text(encoding="utf-8")
    for key, value in (("pose_model", "'COCO_17'"), ("frame_rate", "60")):
        text = re.sub(rf"^{key} = .*", f"{key} = {value}", text, flags=re.MULTILINE)
    (folder / "Config.toml").write_text(text, encoding="utf-8")
    os.chdir(folder)
    from Pose2Sim import Pose2Sim

    Pose2Sim.calibration()
    Pose2Sim.personAssociation()
    Pose2Sim.triangulation()
    log = (folder / "logs.txt").read_text(encoding="utf-8")
    found = re.search(r"all points on frames \d+ to \d+ is ([\d.]+) px.*?([\d.]+) mm", log)
    assert found, "no reprojection error in Pose2Sim's log"
    (trc,) = folder.glob("pose-3d/*.trc")
    rows = list(csv.reader(trc.read_text().splitlines(), delimiter="\t"))
    frames, markers = int(float(rows[2][2])), int(float(rows[2][3]))
    return {"frames": frames, "markers": markers, "reprojection_px": float(found[1]),
            "reprojection_mm": float(found[2])}  # fmt: skip


def labelstudio(folder: Path) -> dict[str, Any]:
    """Each task and prediction checked against a labeling interface with the skeleton's names."""
    from label_studio_sdk.label_interface import LabelInterface

    (path,) = folder.glob("*.labelstudio.json")
    tasks = json.loads(path.read_text(encoding="utf-8"))
    regions = [each for task in tasks for p in task["predictions"] for each in p["result"]]
    values = (r["value"]["keypointlabels"][0] for r in regions if r["from_name"] == "keypoints")
    names = "".join(f'<Label value="{name}"/>' for name in dict.fromkeys(values))
    interface = LabelInterface(LABELS.format(names=names))
    errors = [
        error
        for task in tasks
        for prediction in task["predictions"]
        for error in interface.validate_prediction(prediction, return_errors=True)
    ]
    missing = [t for t in tasks if not interface.validate_task({"data": t["data"]})]
    return {"tasks": len(tasks), "regions": len(regions), "errors": len(errors) + len(missing)}


def deeplabcut(folder: Path) -> dict[str, Any]:
    """Its `load_analyzed_data`, on the .h5 that two lines of pandas make of the table."""
    import numpy as np
    import pandas as pd

    for name in ("deeplabcut", "deeplabcut.utils"):
        _without_init(name)  # which imports its networks, and with them PyTorch
    from deeplabcut.utils.auxiliaryfunctions import load_analyzed_data

    (path,) = folder.glob("*.dlc.csv")
    table = pd.read_csv(path, header=[0, 1, 2, 3], index_col=0)
    scorer, video = table.columns[0][0], path.name.removesuffix(".dlc.csv")
    table.to_hdf(folder / f"{video}{scorer}_el.h5", key="df_with_missing")
    found, *_ = load_analyzed_data(folder, video, scorer, track_method="ellipse")
    assert np.array_equal(found.to_numpy(), table.to_numpy(), equal_nan=True)
    individuals, parts = (found.columns.unique(name) for name in ("individuals", "bodyparts"))
    return {"frames": len(found), "individuals": len(individuals), "keypoints": len(parts)}


def movement(folder: Path) -> dict[str, Any]:
    """Its `load_dataset`, as a file of DeepLabCut."""
    from movement.io import load_dataset

    (path,) = folder.glob("*.dlc.csv")
    found = load_dataset(path, source_software="DeepLabCut", fps=30)
    return {"frames": found.sizes["time"], "individuals": found.sizes["individuals"],
            "keypoints": found.sizes["keypoints"]}  # fmt: skip


def _without_init(name: str) -> None:
    """A package whose modules can be imported, though its own code was not run."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    module = types.ModuleType(name)
    module.__path__ = list(spec.submodule_search_locations or [])
    sys.modules[name] = module


READERS = {
    "pose2sim": ("Pose2Sim", pose2sim),
    "label-studio-sdk": ("label-studio-sdk", labelstudio),
    "deeplabcut": ("deeplabcut", deeplabcut),
    "movement": ("movement", movement),
}


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    package, read = READERS[name]
    print(json.dumps({"version": version(package), **read(folder)}))


if __name__ == "__main__":
    main()
