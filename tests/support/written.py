"""Poses that test_write and test_write_files write."""

import json
from pathlib import Path

import numpy as np

from posekit.skeletons import COCO_17
from posekit.types import Boxes, Frame, Poses
from posekit.write import Header, open_writers

COUNT = len(COCO_17)
HEADER = Header("1.2.3", "movenet-thunder", "ab" * 32, COCO_17, "Köln 1.mp4", (320, 240), 25.0)
IMAGE = np.zeros((240, 320, 3), np.uint8)
TIDY = ["frame", "time_s", "id", "keypoint", "x", "y", "score", "raw_x", "raw_y"]


def make_poses(ids: list[int] | None, persons: int | None = None, seed: int = 0) -> Poses:
    rng = np.random.default_rng(seed)
    n = len(ids) if persons is None else persons
    points = rng.uniform(0, 200, (n, COUNT, 2))
    return Poses(
        points=points,
        scores=rng.uniform(0.3, 1, (n, COUNT)),
        boxes=Boxes(np.concatenate([points.min(1), points.max(1)], 1) if n else []),
        skeleton=COCO_17,
        ids=ids,
        raw_points=points + 1.5,
    )


# The first frame is empty, a person comes and goes, and one point is not a number.
SEQUENCE = [make_poses([]), make_poses([3, 7], seed=1), make_poses([7], seed=2), make_poses([])]
SEQUENCE[2].points[0, 4] = np.nan


def write(folder: Path, *formats: str, frames=SEQUENCE, names=(), stem="a b ü") -> list[Path]:
    writers = open_writers(formats, folder, stem, header=HEADER)
    for index, poses in enumerate(frames):
        name = names[index] if names else ""
        writers.write(Frame(IMAGE, index, index / 25, name), poses)
    return writers.close()


def strict(text: str):
    """JSON as the standard has it: NaN and Infinity are errors."""

    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def rows_of(frames) -> int:
    return sum(len(poses) for poses in frames) * COUNT
