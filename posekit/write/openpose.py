"""OpenPose's JSON: a folder with one file a frame, as Pose2Sim reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from posekit.atomic import AtomicFolder
from posekit.types import Frame, Poses
from posekit.write.format import Format, strict_json
from posekit.write.header import Header

# Source: OpenPose's output format, version 1.3; a reader may need any of the empty lists.
_EMPTY = (
    "face_keypoints_2d",
    "hand_left_keypoints_2d",
    "hand_right_keypoints_2d",
    "pose_keypoints_3d",
    "face_keypoints_3d",
    "hand_left_keypoints_3d",
    "hand_right_keypoints_3d",
)


class OpenPose(Format[AtomicFolder]):
    """`<stem>_json/<stem>_<frame, 12 digits>_keypoints.json`.

    `pose_keypoints_2d` holds x, y, score in the order of the model's skeleton, NOT in that of
    BODY_25: of COCO_17 it is what Pose2Sim calls COCO_17. `person_id` is [track], or [-1]
    untracked. Pose2Sim takes the folders of `pose/` whose name holds "json", and the frame from
    the last number of a file's name.
    """

    def __init__(self, path: Path, header: Header) -> None:
        del header  # the format has no place for it
        self.out = AtomicFolder(path)
        self._stem = path.name.removesuffix("_json")

    def write(self, frame: Frame, poses: Poses) -> None:
        """One file, also for a frame without persons; a point that is not finite is 0, 0, 0."""
        people = [_person(poses, n) for n in range(len(poses))]
        path = self.out.folder / f"{self._stem}_{frame.index:012d}_keypoints.json"
        path.write_text(strict_json({"version": 1.3, "people": people}), encoding="utf-8")


def _person(poses: Poses, n: int) -> dict[str, Any]:
    points, scores = poses.points[n].astype(float).round(2), poses.scores[n].astype(float).round(4)
    triplets = np.concatenate([points, scores[:, None]], 1)
    triplets[~np.isfinite(triplets).all(1)] = 0.0
    person: dict[str, Any] = {"person_id": [-1 if poses.ids is None else int(poses.ids[n])]}
    person["pose_keypoints_2d"] = triplets.reshape(-1).tolist()
    return {**person, **{name: [] for name in _EMPTY}}
