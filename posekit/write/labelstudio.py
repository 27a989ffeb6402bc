"""Label Studio tasks with pre-annotations, to be corrected by people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from posekit.atomic import AtomicFile
from posekit.types import Frame, Poses
from posekit.write.format import VISIBLE, Format, person_ids, strict_json
from posekit.write.header import Header

_POINT_PERCENT = 0.5  # drawn size of a point, of the image's width


class LabelStudio(Format[AtomicFile]):
    """A JSON list of one task a frame; coordinates in percent: 100 * pixel index / size.

    The labeling interface needs `<Image name="image" value="$image"/>`, `<RectangleLabels
    name="box" toName="image">` with the label person, and `<KeyPointLabels name="keypoints"
    toName="image">` with the skeleton's names. Each point has its person's box as parent. Points
    scored under 0.2 are left out; others are moved into the image.
    `data.image` is the file's name, for videos `<stem>_<frame, 6 digits>.jpg`: prefix your URL.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.out = AtomicFile(path)
        self._stem = path.name.removesuffix(".labelstudio.json")
        self._version = f"{header.model} posekit {header.version}"
        self._before = "[\n"

    def write(self, frame: Frame, poses: Poses) -> None:
        """One task, also for a frame without persons."""
        result: list[dict[str, Any]] = []
        for n, person in enumerate(person_ids(poses)):
            result += _person(frame, poses, n, person=person)
        name = frame.name or f"{self._stem}_{frame.index:06d}.jpg"
        task = {
            "data": {"image": name, "frame": frame.index, "time_s": round(frame.time_s, 6)},
            "predictions": [{"model_version": self._version, "result": result}],
        }
        self.out.file.write(self._before + strict_json(task))
        self._before = ",\n"

    def finish(self) -> None:
        """Close the list."""
        self.out.file.write("[]\n" if self._before == "[\n" else "\n]\n")


def _person(frame: Frame, poses: Poses, n: int, *, person: int) -> list[dict[str, Any]]:
    """The box and the visible points of person `n`, named after the track `person`."""
    width, height = frame.size
    percent = 100 / np.array([width, height], np.float64)
    low, high = np.clip(poses.boxes.xyxy[n].reshape(2, 2) * percent, 0, 100).round(4).tolist()
    places = np.clip(poses.points[n] * percent, 0, 100).round(4).tolist()
    shared = {
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
    }
    box_id = f"f{frame.index}-p{person}"
    span = {"width": round(high[0] - low[0], 4), "height": round(high[1] - low[1], 4)}
    value: dict[str, Any] = {"x": low[0], "y": low[1], **span, "rotation": 0}
    box = {"id": box_id, "from_name": "box", "type": "rectanglelabels", **shared}
    box["value"] = {**value, "rectanglelabels": ["person"]}
    box["score"] = round(float(poses.boxes.scores[n]), 4)
    points = []
    for k in np.flatnonzero((poses.scores[n] >= VISIBLE) & np.isfinite(poses.points[n]).all(1)):
        name, (x, y) = poses.skeleton.keypoints[k], places[k]
        point = {"id": f"{box_id}-{name}", "parentID": box_id, "from_name": "keypoints", **shared}
        point |= {"type": "keypointlabels", "score": round(float(poses.scores[n, k]), 4)}
        point["value"] = {"x": x, "y": y, "width": _POINT_PERCENT, "keypointlabels": [name]}
        points.append(point)
    return [box, *points]
