"""Do others' packages read posekit's files? `python -m benchmarks readers [--assets DIR]`.

In environments of their own, which `scripts/baselines readers` makes:

- Pose2Sim: `--format openpose` of its demo's four calibrated cameras, through its own calibration,
  association of persons and triangulation, with its configuration and `pose_model = 'COCO_17'`.
- label-studio-sdk: `--format labelstudio`, each prediction checked against a labeling interface.
- DeepLabCut: `--format dlc`, saved as .h5 by pandas, by its `load_analyzed_data`.
- movement: the same table, by its `load_dataset`.

Writes results/readers.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.results_file import ASSETS, ROOT, command, one_thread, save

SCRIPT = ROOT / "benchmarks" / "runtime" / "baselines" / "read_files.py"
CAMERAS = 4
CALIBRATION = "pose2sim_singleperson_Calib.qca.txt"
FORMATS = {
    "pose2sim": "openpose",
    "label-studio-sdk": "labelstudio",
    "deeplabcut": "dlc",
    "movement": "dlc",
}


def infer(sources: list[Path], folder: Path, formats: str) -> None:
    """`posekit infer`, without the overlay."""
    arguments = ["infer", *map(str, sources), "--no-video", "--format", formats, "-o", str(folder)]
    run = [sys.executable, "-m", "posekit", *arguments]
    subprocess.run(run, env=one_thread(), check=True, capture_output=True)


def project(assets: Path, folder: Path) -> None:
    """A folder as Pose2Sim takes it: pose/<camera>_json and calibration/."""
    clips = []
    for n in range(1, CAMERAS + 1):
        clips.append(folder / f"cam{n:02d}.mp4")
        shutil.copy(assets / "video" / f"pose2sim_singleperson_cam{n:02d}.mp4", clips[-1])
    infer(clips, folder / "pose", "openpose")
    (folder / "calibration").mkdir()
    shutil.copy(assets / "video" / CALIBRATION, folder / "calibration" / "Calib.qca.txt")


def read(name: str, folder: Path) -> dict[str, Any]:
    """What the package reports of the files in `folder`."""
    environment = ".baselines-pose2sim" if name == "pose2sim" else ".baselines-readers"
    python = ROOT / environment / "bin" / "python"
    if not python.exists():
        sys.exit(f"{environment} is missing: run scripts/baselines readers")
    quiet = {"MPLBACKEND": "Agg", "QT_QPA_PLATFORM": "offscreen", "PYTHONPATH": ""}
    run = subprocess.run(
        [str(python), str(SCRIPT), name, str(folder)],
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        sys.exit(f"{name}: {run.stdout}{run.stderr}")
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Write, read, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=ASSETS)
    options = parser.parse_args()
    figures = {}
    for name, form in FORMATS.items():
        with tempfile.TemporaryDirectory() as folder:
            if name == "pose2sim":
                project(options.assets, Path(folder))
            else:
                infer([ROOT / "examples" / "sports2d_demo.mp4"], Path(folder), form)
            figures[name] = {"format": form, **read(name, Path(folder))}
        print(name, figures[name], flush=True)
    path = save("readers", command("readers"), 1, figures)
    print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
