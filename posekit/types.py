"""The nouns: frozen dataclasses of arrays, checked once when they are made.

Pixel convention (stated in full in `posekit.geometry`): the center of the first pixel is
(0, 0), x points right, y points down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posekit.drawing.style import DrawStyle
from posekit.errors import InputError, MissingExtraError
from posekit.inputs.pixels import check_image
from posekit.inputs.rows import no_rows, row_of
from posekit.spec import Color, Decode, DetectorSpec, ModelSpec, Skeleton

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Boxes",
    "Color",
    "Decode",
    "DetectorSpec",
    "DrawStyle",
    "Float32",
    "Frame",
    "Int64",
    "ModelSpec",
    "Person",
    "Poses",
    "Skeleton",
    "UInt8",
]

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]

_FAR = 1.25  # of an image's size: a box that begins beyond it was found in another one


def _array(value: ArrayLike, name: str, shape: tuple[int | None, ...]) -> Float32:
    """`value` as a float32 array of `shape` (None: any length); InputError otherwise."""
    try:
        array = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: wanted numbers of shape {_shape(shape)}, got {error}") from error
    matches = array.ndim == len(shape) and all(
        want is None or got == want for got, want in zip(array.shape, shape, strict=True)
    )
    if not matches:
        raise InputError(f"{name}: wanted shape {_shape(shape)}, got {array.shape}")
    return array


def _rows(index: ArrayLike | slice, count: int) -> NDArray[Any]:
    """Rows of `count`, as integers. Raises IndexError, InputError."""
    try:
        rows = index if isinstance(index, slice) else np.asarray(index)
        if isinstance(rows, np.ndarray) and not rows.size:
            rows = np.zeros(0, np.int64)  # NumPy takes [] for floats
        found = np.arange(count)[rows]
    except (IndexError, TypeError, ValueError) as error:
        raise no_rows(index, count) from error
    if found.ndim != 1:
        raise no_rows(index, count)
    return found


def _shape(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("N" if n is None else str(n) for n in shape) + ")"


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a source.

    image: uint8 (H, W, 3), RGB.
    index: position in the source, from 0.
    time_s: presentation time in seconds.
    name: path of the image from its source's folder; "" for video.
    """

    image: UInt8
    index: int = 0
    time_s: float = 0.0
    name: str = ""

    def __post_init__(self) -> None:
        image = self.image
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            got = getattr(image, "dtype", type(image).__name__)
            raise InputError(f"frame: wanted a uint8 array (H, W, 3) RGB, got {got}")
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise InputError(f"frame: wanted shape (H, W, 3) RGB, got {image.shape}")

    @property
    def size(self) -> tuple[int, int]:
        """(W, H), px."""
        return self.image.shape[1], self.image.shape[0]

    @property
    def pixels(self) -> Any:
        """What a runtime crops persons from: the image, or one that lies on its GPU."""
        return self.image

    def __repr__(self) -> str:
        return f"Frame(image={self.image.shape}, index={self.index}, time_s={self.time_s:.3f})"


@dataclass(frozen=True, eq=False)
class Boxes:
    """Person boxes in frame pixels.

    xyxy: float32 (N, 4), left, top, right, bottom; finite, right >= left, bottom >= top.
    scores: float32 (N,) in [0, 1]; ones where they are left out.
    """

    xyxy: Float32
    scores: Float32 = None  # type: ignore[assignment]  # filled below

    def __post_init__(self) -> None:
        xyxy = np.asarray(self.xyxy, np.float32)
        xyxy = _array(xyxy.reshape(0, 4) if xyxy.size == 0 else xyxy, "boxes", (None, 4))
        scores = np.ones(len(xyxy), np.float32) if self.scores is None else self.scores
        scores = _array(scores, "box scores", (len(xyxy),))
        bad = ~np.isfinite(xyxy).all(1) | (xyxy[:, 2] < xyxy[:, 0]) | (xyxy[:, 3] < xyxy[:, 1])
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InputError(
                f"boxes: row {row} is {xyxy[row].tolist()}; wanted finite x0, y0, x1, y1 "
                "with x1 >= x0 and y1 >= y0"
            )
        object.__setattr__(self, "xyxy", xyxy)
        object.__setattr__(self, "scores", scores)

    def __len__(self) -> int:
        return len(self.xyxy)

    def __repr__(self) -> str:
        return f"Boxes(xyxy={self.xyxy.shape}, scores={self.scores.shape})"

    def select(self, index: ArrayLike) -> Boxes:
        """The rows that `index` (integers or booleans) names. Raises IndexError, InputError."""
        rows = _rows(index, len(self))
        return Boxes(self.xyxy[rows], self.scores[rows])


@dataclass(frozen=True, eq=False)
class Person:
    """One person of `Poses`; `person["left_knee"]` is x, y of that keypoint.

    points: float32 (K, 2), x then y, frame pixels.  scores: float32 (K,), heatmap peaks.
    box: float32 (4,), x0, y0, x1, y1.  id: of the track, or None.
    confidence: float32 (K,), calibrated probability, or None.
    """

    points: Float32
    scores: Float32
    box: Float32
    id: int | None
    confidence: Float32 | None
    skeleton: Skeleton

    def __getitem__(self, keypoint: str) -> Float32:
        """x, y, float32 (2,). Raises InputError for a name that the skeleton lacks."""
        point: Float32 = self.points[self.skeleton.index(keypoint)]
        return point

    def __repr__(self) -> str:
        return f"Person(id={self.id}, box={self.box.tolist()}, skeleton={self.skeleton.name})"


@dataclass(frozen=True, eq=False)
class Poses:
    """Keypoints of N persons in one frame: an iterable of `Person`, and their arrays.

    `poses[0]` is a person, `poses[:2]` or `poses[mask]` are the poses of some, and
    `poses["left_knee"]` is that keypoint of all, float32 (N, 2).

    points: float32 (N, K, 2), x then y, frame pixels.  scores: float32 (N, K), heatmap peaks.
    boxes: where each person was looked for.  ids: int64 (N,) track ids, or None.
    raw_points: points before smoothing, or None.
    confidence: float32 (N, K), calibrated probability, or None.
    """

    points: Float32
    scores: Float32
    boxes: Boxes
    skeleton: Skeleton
    ids: Int64 | None = None
    raw_points: Float32 | None = None
    confidence: Float32 | None = None

    def __post_init__(self) -> None:
        shape = (len(self.boxes), len(self.skeleton.keypoints))
        object.__setattr__(self, "points", _array(self.points, "points", (*shape, 2)))
        object.__setattr__(self, "scores", _array(self.scores, "scores", shape))
        if self.raw_points is not None:
            raw = _array(self.raw_points, "raw_points", (*shape, 2))
            object.__setattr__(self, "raw_points", raw)
        if self.confidence is not None:
            object.__setattr__(self, "confidence", _array(self.confidence, "confidence", shape))
        if self.ids is not None:
            ids = np.asarray(self.ids, np.int64)
            if ids.shape != shape[:1]:
                raise InputError(f"ids: wanted shape ({shape[0]},), got {ids.shape}")
            object.__setattr__(self, "ids", ids)

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[Person]:
        return (self[n] for n in range(len(self)))

    @overload
    def __getitem__(self, key: int) -> Person: ...
    @overload
    def __getitem__(self, key: str) -> Float32: ...
    @overload
    def __getitem__(self, key: slice | list[int] | list[bool] | NDArray[Any]) -> Poses: ...
    def __getitem__(self, key: Any) -> Person | Float32 | Poses:
        """One person, the points of a keypoint's name, or the persons of a slice, list or mask.

        Raises IndexError for a person that is not there, InputError for a keypoint or no index.
        """
        if isinstance(key, str):
            named: Float32 = self.points[:, self.skeleton.index(key)]
            return named
        if isinstance(key, slice | list | np.ndarray):
            return self.select(key)
        row = row_of(key, len(self))
        confidence = None if self.confidence is None else self.confidence[row]
        identity = None if self.ids is None else int(self.ids[row])
        box = self.boxes.xyxy[row]
        return Person(self.points[row], self.scores[row], box, identity, confidence, self.skeleton)

    def __repr__(self) -> str:
        ids = None if self.ids is None else self.ids.tolist()
        return f"Poses(points={self.points.shape}, skeleton={self.skeleton.name}, ids={ids})"

    def select(self, index: ArrayLike | slice) -> Poses:
        """The persons that `index` (integers, booleans, a slice) names; as `poses[index]`.

        Raises IndexError for a person that is not there, InputError for no index.
        """
        rows = _rows(index, len(self))
        optional = (self.ids, self.raw_points, self.confidence)
        ids, raw, confidence = (None if part is None else part[rows] for part in optional)
        points, scores, boxes = self.points[rows], self.scores[rows], self.boxes.select(rows)
        return Poses(points, scores, boxes, self.skeleton, ids, raw, confidence)

    def angle(self, start: str, vertex: str, end: str, *, min_score: float = 0.0) -> Float32:
        """The angle at keypoint `vertex` between `start` and `end`, degrees from 0 to 180, (N,).

            poses.angle("left_hip", "left_knee", "left_ankle")  # 180: a straight leg

        In the image plane. NaN where one of the three scores below `min_score`, or two coincide.
        Raises InputError for a name that the skeleton lacks.
        """
        rows = [self.skeleton.index(name) for name in (start, vertex, end)]
        points = self.points[:, rows].astype(np.float64)
        first, second = points[:, 0] - points[:, 1], points[:, 2] - points[:, 1]
        cross = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
        angles = np.degrees(np.arctan2(np.abs(cross), (first * second).sum(1)))
        known = first.any(1) & second.any(1) & (self.scores[:, rows] >= min_score).all(1)
        return np.where(known, angles, np.nan).astype(np.float32)

    def crop(self, image: UInt8, index: int, *, margin: float = 0.0) -> UInt8:
        """A copy of `image` within the box of person `index`, cut at the image's border.

        margin: added on each side, as a share of the box's longer side.
        Raises InputError: no uint8 array (H, W, 3), no such person, or a box outside the image.
        """
        check_image(image)
        try:
            box = self.boxes.xyxy[row_of(index, len(self))].astype(np.float64)
        except IndexError as error:
            raise InputError(str(error)) from error
        grown = margin * (box[2:] - box[:2]).max()
        size = np.array(image.shape[1::-1])
        low = np.clip(np.floor(box[:2] - grown + 0.5), 0, size).astype(int)
        high = np.clip(np.ceil(box[2:] + grown + 0.5), 0, size).astype(int)
        if (high <= low).any():
            raise InputError(
                f"person {index}: its box {np.round(box).tolist()} does not lie in an image of "
                f"{size[0]} x {size[1]} px"
            )
        return image[low[1] : high[1], low[0] : high[0]].copy()

    def draw(self, image: UInt8, style: DrawStyle = DrawStyle(), *, color: Color = "rgb") -> UInt8:
        """A copy of `image`, uint8 (H, W, 3), with the persons drawn on it; see `DrawStyle`.

        color: the order of the image's channels, which the copy has too.
        Raises InputError, also where all persons lie far outside `image`: it is another one.
        """
        from posekit.drawing.draw import draw  # loads OpenCV, which nothing else here needs

        size = np.array(check_image(image).shape[1::-1])
        inside = np.any(np.all(self.points < size, 2), 1)
        far = np.any(self.boxes.xyxy[:, :2] > _FAR * size, 1) & ~inside
        if len(self) and far.all():  # not by a little: a person may walk out of a video's frame
            raise InputError(
                f"image: {size[0]} x {size[1]} px, and all {len(self)} persons lie outside it; "
                "wanted the image that they were found in, or one of its size"
            )
        return draw(image, self, style=style, color=color)

    def to_dict(self) -> dict[str, Any]:
        """One JSON Lines frame's `persons`: id, box, box_score, points, raw_points, scores."""
        raw = self.points if self.raw_points is None else self.raw_points
        persons = []
        for n in range(len(self)):
            person = {
                "id": None if self.ids is None else int(self.ids[n]),
                "box": _rounded(self.boxes.xyxy[n]),
                "box_score": round(float(self.boxes.scores[n]), 4),
                "points": _rounded(self.points[n]),
                "raw_points": _rounded(raw[n]),
                "scores": _rounded(self.scores[n], 4),
            }
            if self.confidence is not None:
                person["confidence"] = _rounded(self.confidence[n], 4)
            persons.append(person)
        return {"persons": persons}

    def to_coco(self, image_id: int = 0, visible: float = 0.2) -> list[dict[str, Any]]:
        """COCO keypoint results, one entry a person.

        `score` is the box score times the mean of the keypoint scores above `visible`
        (the MSRA protocol). Coordinates are 0-based pixel indices.
        """
        results = []
        for n in range(len(self)):
            x0, y0, x1, y1 = self.boxes.xyxy[n].tolist()
            above = self.scores[n][self.scores[n] > visible]
            score = float(self.boxes.scores[n]) * (float(above.mean()) if above.size else 0.0)
            flat = np.concatenate([self.points[n], self.scores[n][:, None]], 1).reshape(-1)
            entry = {"image_id": image_id, "category_id": 1, "keypoints": _rounded(flat, 4)}
            bbox = _rounded(np.array([x0, y0, x1 - x0, y1 - y0]))
            results.append({**entry, "score": round(score, 6), "bbox": bbox})
        return results

    def to_dataframe(self) -> pd.DataFrame:
        """A row a keypoint: person, id, keypoint, x, y, score; confidence where there is one.

        person: row in `points`.  Raises MissingExtraError where pandas is missing.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtraError("to_dataframe needs: pip install pandas") from error
        count, names = len(self), self.skeleton.keypoints
        ids = np.array([person.id for person in self], object)
        columns: dict[str, Any] = {
            "person": np.repeat(np.arange(count), len(names)),
            "id": pd.array(np.repeat(ids, len(names)), dtype="Int64"),
            "keypoint": np.tile(np.array(names, object), count),
            "x": self.points[..., 0].ravel(),
            "y": self.points[..., 1].ravel(),
            "score": self.scores.ravel(),
        }
        if self.confidence is not None:
            columns["confidence"] = self.confidence.ravel()
        return pd.DataFrame(columns)

    def to_supervision(self) -> Any:
        """A `supervision.KeyPoints`. Raises MissingExtraError where supervision is missing."""
        try:
            import supervision
        except ImportError as error:
            raise MissingExtraError("to_supervision needs: pip install supervision") from error
        confidence = self.scores if self.confidence is None else self.confidence
        return supervision.KeyPoints(
            xy=self.points.astype(np.float32),
            keypoint_confidence=confidence.astype(np.float32),
            class_id=np.zeros(len(self), int),
        )


def _rounded(values: NDArray[Any], digits: int = 2) -> list[Any]:
    """Nested lists with `digits` decimals: short lines, and equal on every machine."""
    rounded: list[Any] = np.round(values.astype(np.float64), digits).tolist()
    return rounded
