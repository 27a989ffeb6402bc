"""Results of a made-up clip, for pages and their readers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posekit.skeletons import COCO_17
from posekit.types import Boxes, Frame, Poses, Skeleton
from posekit.view import Origin, Results, ResultsBuilder

FPS = 25


def box(x: float, y: float = 20.0, size: float = 40.0) -> list[float]:
    return [x, y, x + size, y + 1.5 * size]


def poses_in(boxes: dict[int, list[float]], skeleton: Skeleton = COCO_17, seed: int = 0) -> Poses:
    """Persons by id, keypoints drawn in their boxes."""
    rng = np.random.default_rng(seed)
    corners = np.array(list(boxes.values()), np.float32).reshape(-1, 4)
    share = rng.uniform(0, 1, (len(boxes), len(skeleton), 2))
    points = corners[:, None, :2] + share * (corners[:, None, 2:] - corners[:, None, :2])
    scores = rng.uniform(0.4, 1, (len(boxes), len(skeleton)))
    return Poses(points, scores, Boxes(corners), skeleton, list(boxes), points + 1.5)


def results_of(
    frames: Sequence[dict[int, list[float]]],
    *,
    source: str = "clip.mp4",
    size: tuple[int, int] = (160, 96),
    skeleton: Skeleton = COCO_17,
    files: Sequence[str] = (),
) -> Results:
    """Frames 40 ms apart, each with boxes by id."""
    builder = ResultsBuilder(Origin("model", skeleton, source, size, FPS, "1.2.3"))
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for n, boxes in enumerate(frames):
        frame = Frame(image, n, n / FPS, files[n] if files else "")
        builder.add_poses(frame, poses_in(boxes, skeleton, seed=n))
    return builder.build()


def write_jsonl(path: Path, results: Results) -> Path:
    """The file of these results, as posekit writes it."""
    origin = results.origin
    header = {"posekit": origin.version, "model": origin.model, "source": origin.source}
    header |= {"skeleton": origin.skeleton.to_dict(), "size": list(origin.size or ())}
    lines: list[dict[str, Any]] = [{**header, "fps": origin.fps}]
    for n, frame in enumerate(results.frames.tolist()):
        rows = range(results.starts[n], results.starts[n + 1])
        line = {"frame": frame, "time_s": results.times_s[n]}
        line |= {"file": results.files[n]} if results.files else {}
        lines.append({**line, "persons": [_person(results, row) for row in rows]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def _person(results: Results, row: int) -> dict[str, Any]:
    persons = results.persons
    return {
        "id": int(persons.ids[row]) if results.tracked else None,
        "box": persons.boxes[row].tolist(),
        "points": persons.points[row].tolist(),
        "raw_points": persons.raw_points[row].tolist(),
        "scores": persons.scores[row].tolist(),
    }
