"""Geometric bias without labels: `python -m benchmarks reprojection [--assets DIR]`.

Calibrated, synchronized cameras (Pose2Sim's demo clips) record the same keypoints. Each keypoint
that scores 0.3 or more in enough views is triangulated and projected back:

- residual: into the views that it was triangulated from (4 views; 2 views of the several persons,
  where only the part across the epipolar line shows).
- held out: into a view that was left out of the triangulation (4 views only).
- bias: the median held-out offset (x, y) of each view; a model that shifts all points one way, or
  a wrong pixel convention, shows here, since cameras around a person disagree about "one way".
  What both models share is the rig's own error; "bias_difference_px" is what they do not.
- aimed: held out again, with each camera's principal point moved to where the *other* model's
  points agree best. Only the rig's error can be learned from another model, so what falls away
  here is the rig's.

Both for the points as they are found and smoothed. Distances in px of the frame, and in percent
of the person's size, sqrt(box area).
Writes results/reprojection.json, row by row; existing rows are not measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, linear_sum_assignment

import posekit
from benchmarks.accuracy.persons import NAMES
from benchmarks.results_file import ASSETS, ROOT, command, figures_of, save
from posekit import Poses
from posekit.inference.session import usable_threads

CLIPS = {"singleperson": 4, "multiperson": 2}
MIN_SCORE = 0.3
AIM_COST = 0.3  # a keypoint's miss of 0.3 px weighs as much as a camera's shift of 1 px
SAME_PERSON = 0.1  # of the size: the median residual of a pair that is one person
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Camera:
    """Pinhole with Brown's distortion, OpenCV's axes; lengths in mm."""

    matrix: Array
    distortion: Array
    rotation: Array
    shift: Array

    @property
    def projection(self) -> Array:
        """World to normalized, undistorted image coordinates, (3, 4)."""
        return np.concatenate([self.rotation, self.shift[:, None]], 1)

    def normalized(self, points: Array) -> Array:
        """Pixels (M, 2) without distortion, in units of the focal length."""
        wide = np.ascontiguousarray(points[:, None], np.float64)
        return cv2.undistortPoints(wide, self.matrix, self.distortion)[:, 0]

    def project(self, world: Array) -> Array:
        """World points (M, 3) to pixels (M, 2)."""
        turn, _ = cv2.Rodrigues(self.rotation)
        found, _ = cv2.projectPoints(world, turn, self.shift, self.matrix, self.distortion)
        return found[:, 0]


def cameras(path: Path) -> list[Camera]:
    """Qualisys' file: 1/64 px, and camera axes with y up and z backwards."""
    # The file is part of a pinned package, so the standard parser is safe here.
    found = []
    for each in ET.parse(path).getroot().iter("camera"):
        transform, lens = each.find("transform"), each.find("intrinsic")
        assert transform is not None
        assert lens is not None
        turn, inner = transform.attrib, {k: float(v) for k, v in lens.attrib.items()}
        axes = np.array([[float(turn[f"r{i}{j}"]) for j in (1, 2, 3)] for i in (1, 2, 3)])
        rotation = np.diag([1.0, -1.0, -1.0]) @ axes
        center = np.array([float(turn[axis]) for axis in "xyz"])
        matrix = np.eye(3)
        matrix[0, 0], matrix[1, 1] = inner["focalLengthU"] / 64, inner["focalLengthV"] / 64
        matrix[0, 2], matrix[1, 2] = inner["centerPointU"] / 64, inner["centerPointV"] / 64
        bends = ("radialDistortion1", "radialDistortion2")
        bends += ("tangentalDistortion1", "tangentalDistortion2")
        distortion = np.array([inner[name] for name in bends])
        found.append(Camera(matrix, distortion, rotation, -rotation @ center))
    return found


def triangulate(views: list[Camera], points: Array) -> Array:
    """World point (3,) of one keypoint at `points` (V, 2), px: linear, least squares."""
    rows = []
    for camera, point in zip(views, points, strict=True):
        x, y = camera.normalized(point[None])[0]
        p = camera.projection
        rows += [x * p[2] - p[0], y * p[2] - p[1]]
    _, _, last = np.linalg.svd(np.array(rows))
    return last[-1, :3] / last[-1, 3]


def offsets(views: list[Camera], points: Array, world: Array) -> Array:
    """Found minus projected, (V, 2), px."""
    there = np.stack([camera.project(world[None])[0] for camera in views])
    return points - there


def followed(model: str, clip: Path) -> list[Poses]:
    """Poses of each frame, tracked and smoothed."""
    estimator = posekit.load(model, device="cpu")
    return [poses for _, poses in estimator.stream(clip)]


def main_person(frames: list[Poses]) -> list[Poses]:
    """The person that is there longest and largest."""
    extent: Counter[int] = Counter()
    for poses in frames:
        for row, key in enumerate([] if poses.ids is None else poses.ids.tolist()):
            extent[key] += round(size_of(poses, row))
    ((first, _),) = extent.most_common(1)
    return [poses.select(np.flatnonzero(poses.ids == first)) for poses in frames]


def points_of(poses: Poses, person: int, *, smoothed: bool) -> Array:
    """(K, 2), px, as found or smoothed."""
    raw = poses.points if poses.raw_points is None else poses.raw_points
    return (poses.points if smoothed else raw)[person].astype(np.float64)


def size_of(poses: Poses, person: int) -> float:
    """Square root of the box's area, px."""
    box = poses.boxes.xyxy[person]
    return float(np.sqrt((box[2] - box[0]) * (box[3] - box[1])))


Sight = tuple[int, Poses, int]  # camera, its poses, the person's row


def groups(frame: list[Poses], rig: list[Camera]) -> list[list[Sight]]:
    """Which persons of the views are one person."""
    if len(rig) > 2:
        return [[(v, poses, 0) for v, poses in enumerate(frame) if len(poses)]]
    a, b = frame
    if not len(a) or not len(b):
        return []
    cost = np.array(
        [[_mismatch(rig, (a, i), (b, j)) for j in range(len(b))] for i in range(len(a))]
    )
    pairs = zip(*linear_sum_assignment(cost), strict=True)
    return [[(0, a, int(i)), (1, b, int(j))] for i, j in pairs if cost[i, j] < SAME_PERSON]


def _mismatch(rig: list[Camera], one: tuple[Poses, int], two: tuple[Poses, int]) -> float:
    """Median residual of the high-confidence keypoints, in sizes; 9 where there are too few."""
    sights: list[Sight] = [(0, *one), (1, *two)]
    rows = residuals(rig, sights, smoothed=False)
    far = [row["far"] / row["size"] for row in rows]
    return float(np.median(far)) if len(far) >= 10 else 9.0


def residuals(rig: list[Camera], sights: list[Sight], *, smoothed: bool) -> list[dict[str, Any]]:
    """A row for each keypoint and view: view, far (px), size, and held-out offset or None."""
    rows = []
    needed = min(len(rig), 3)
    for k in range(sights[0][1].points.shape[1]):
        confident = [s for s in sights if s[1].scores[s[2], k] >= MIN_SCORE]
        if len(confident) < needed:
            continue
        views = [rig[v] for v, _, _ in confident]
        places = np.stack([points_of(p, n, smoothed=smoothed)[k] for _, p, n in confident])
        off = offsets(views, places, triangulate(views, places))
        for i, (v, poses, n) in enumerate(confident):
            rest = [j for j in range(len(confident)) if j != i]
            held = None
            if len(rest) >= 2:
                world = triangulate([views[j] for j in rest], places[rest])
                held = offsets([views[i]], places[i : i + 1], world)[0]
            far = float(np.hypot(*off[i]))
            rows.append({"view": v, "far": far, "size": size_of(poses, n), "held": held})
    return rows


def table(rows: list[dict[str, Any]], views: int) -> dict[str, Any]:
    """Medians, 90th percentiles and biases of the rows."""
    far, size = (np.array([row[key] for row in rows]) for key in ("far", "size"))
    figures: dict[str, Any] = {"keypoints": len(rows), "residual": _spread(far, size)}
    held = [row for row in rows if row["held"] is not None]
    if held:
        off, size = np.stack([r["held"] for r in held]), np.array([r["size"] for r in held])
        view = np.array([row["view"] for row in held])
        figures["held_out"] = _spread(np.hypot(*off.T), size)
        figures["bias_px"] = [
            np.round(np.median(off[view == v], 0), 2).tolist() for v in range(views)
        ]
    return figures


def _spread(far: Array, size: Array) -> dict[str, float]:
    return {
        "median_px": round(float(np.median(far)), 2),
        "p90_px": round(float(np.percentile(far, 90)), 2),
        "median_percent": round(float(np.median(100 * far / size)), 2),
    }


def rig_of(clip: str, folder: Path) -> list[Camera]:
    """The cameras of a set of clips."""
    return cameras(folder / f"pose2sim_{clip}_Calib.qca.txt")[: CLIPS[clip]]


@functools.cache
def moments_of(model: str, clip: str, folder: Path) -> list[list[list[Sight]]]:
    """Detections of each person by a model, frame by frame."""
    rig = rig_of(clip, folder)
    streams = [
        followed(model, folder / f"pose2sim_{clip}_cam{v + 1:02d}.mp4") for v in range(len(rig))
    ]
    if clip == "singleperson":
        streams = [main_person(frames) for frames in streams]
    return [groups(list(frame), rig) for frame in zip(*streams, strict=False)]


def rows_of(moments: list[list[list[Sight]]], rig: list[Camera], *, smoothed: bool) -> list[Any]:
    """`residuals` of all persons in all frames."""
    sets = itertools.chain.from_iterable(moments)
    return [row for sights in sets for row in residuals(rig, sights, smoothed=smoothed) if sights]


def measure(model: str, clip: str, folder: Path) -> dict[str, Any]:
    """One model on one set of clips."""
    rig, moments = rig_of(clip, folder), moments_of(model, clip, folder)
    figures = {
        name: table(rows_of(moments, rig, smoothed=smoothed), len(rig))
        for name, smoothed in (("found", False), ("smoothed", True))
    }
    return {"frames": len(moments), "persons": sum(map(len, moments)), **figures}


def aimed(rig: list[Camera], moments: list[list[list[Sight]]]) -> list[Camera]:
    """The cameras, their principal points moved to where the keypoints agree best.

    Of every third frame, keypoints with a high score in all cameras. The same shift of all cameras
    is a shift of the world and cannot be measured; the small cost on shifts keeps it at zero.
    """
    places = []
    for sights in itertools.chain.from_iterable(moments[::3]):
        if len(sights) == len(rig):
            confident = np.stack([p.scores[n] >= MIN_SCORE for _, p, n in sights]).all(0)
            found = np.stack([points_of(p, n, smoothed=False) for _, p, n in sights])
            places += list(found[:, confident].swapaxes(0, 1))

    def misses(shifts: Array) -> Array:
        views = moved(rig, shifts.reshape(-1, 2))
        off = [offsets(views, each, triangulate(views, each)) for each in places]
        return np.concatenate([np.ravel(off), AIM_COST * shifts])

    solved = least_squares(misses, np.zeros(2 * len(rig)), loss="soft_l1", f_scale=5)
    return moved(rig, solved.x.reshape(-1, 2))


def moved(rig: list[Camera], shifts: Array) -> list[Camera]:
    """The cameras with principal points moved by `shifts` (V, 2), px."""
    views = []
    for camera, shift in zip(rig, shifts, strict=True):
        matrix = camera.matrix.copy()
        matrix[:2, 2] += shift
        views.append(dataclasses.replace(camera, matrix=matrix))
    return views


def aimed_by_other(model: str, folder: Path) -> dict[str, Any]:
    """The single person's figures with cameras aimed by the other model's points."""
    (other,) = set(NAMES) - {model}
    clip = "singleperson"
    rig = aimed(rig_of(clip, folder), moments_of(other, clip, folder))
    old = rig_of(clip, folder)
    shifts = [(a.matrix - b.matrix)[:2, 2] for a, b in zip(rig, old, strict=True)]
    rows = rows_of(moments_of(model, clip, folder), rig, smoothed=False)
    return {**table(rows, len(rig)), "shifts_px": np.round(shifts, 1).tolist()}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("--again", action="store_true", help="measure existing rows again")
    options = parser.parse_args()
    figures = {} if options.again else figures_of("reprojection")
    for model, clip in itertools.product(NAMES, CLIPS):
        if clip in figures.get(model, {}):
            continue
        entry = measure(model, clip, options.assets / "video")
        figures.setdefault(model, {})[clip] = entry
        for name in ("found", "smoothed"):
            print(f"{model:18} {clip:13} {name:9}", entry[name], flush=True)
        save("reprojection", command("reprojection"), usable_threads(), figures)
    for model in NAMES:
        entry = figures[model]["singleperson"]
        if "aimed" not in entry:
            entry["aimed"] = aimed_by_other(model, options.assets / "video")
            print(f"{model:18} aimed by the other model", entry["aimed"], flush=True)
    shared = [figures[name]["singleperson"]["found"]["bias_px"] for name in NAMES]
    figures["bias_difference_px"] = np.round(np.subtract(*shared), 2).tolist()
    print("bias, Thunder minus Lightning, by view:", figures["bias_difference_px"])
    path = save("reprojection", command("reprojection"), usable_threads(), figures)
    print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
