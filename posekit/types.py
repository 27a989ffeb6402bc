"""The nouns: frozen dataclasses of arrays, checked once when they are made.

Pixel convention (stated in full in `posekit.geometry`): the centre of the first pixel is
(0, 0), x points right, y points down.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posekit.errors import InputError, MissingExtraError

Color = Literal["rgb", "bgr"]
Decode = Literal["argmax", "quarter", "quarter-axis", "dark", "udp"]
Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]


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


def _rows(index: ArrayLike) -> NDArray[Any]:
    rows = np.asarray(index)
    return rows if rows.size else rows.astype(np.int64)  # NumPy takes [] for floats


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
        """The rows that `index` (integers or booleans) names."""
        rows = _rows(index)
        return Boxes(self.xyxy[rows], self.scores[rows])


@dataclass(frozen=True)
class Skeleton:
    """What the keypoints are and how they hang together.

    keypoints: K names.  bones: pairs of indices.
    mirror: K indices; keypoint k of a mirrored picture is keypoint mirror[k].
    sigmas: K OKS constants, as a share of the person's size (COCO: sigma, not 2 sigma).
    """

    name: str
    keypoints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    mirror: tuple[int, ...]
    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        count = len(self.keypoints)
        if len(self.mirror) != count or len(self.sigmas) != count:
            raise InputError(
                f"skeleton {self.name}: {count} keypoints, {len(self.mirror)} mirror indices and "
                f"{len(self.sigmas)} sigmas; wanted as many of each"
            )
        if sorted(self.mirror) != list(range(count)) or any(
            self.mirror[self.mirror[k]] != k for k in range(count)
        ):
            raise InputError(f"skeleton {self.name}: mirror must pair keypoints, got {self.mirror}")
        if any(not 0 <= end < count for bone in self.bones for end in bone):
            raise InputError(f"skeleton {self.name}: a bone names keypoints beyond {count - 1}")

    def __len__(self) -> int:
        return len(self.keypoints)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises InputError."""
        try:
            return cls(
                name=str(data["name"]),
                keypoints=tuple(str(name) for name in data["keypoints"]),
                bones=tuple((int(a), int(b)) for a, b in data["bones"]),
                mirror=tuple(int(k) for k in data["mirror"]),
                sigmas=tuple(float(s) for s in data["sigmas"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"skeleton: {error!r} in {sorted(data)}") from error


@dataclass(frozen=True, eq=False)
class Poses:
    """Keypoints of N persons in one frame.

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

    def __repr__(self) -> str:
        ids = None if self.ids is None else self.ids.tolist()
        return f"Poses(points={self.points.shape}, skeleton={self.skeleton.name}, ids={ids})"

    def select(self, index: ArrayLike) -> Poses:
        """The persons that `index` (integers or booleans) names."""
        rows = _rows(index)
        optional = (self.ids, self.raw_points, self.confidence)
        ids, raw, confidence = (None if part is None else part[rows] for part in optional)
        points, scores, boxes = self.points[rows], self.scores[rows], self.boxes.select(rows)
        return Poses(points, scores, boxes, self.skeleton, ids, raw, confidence)

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


@dataclass(frozen=True)
class ModelSpec:
    """All that the arithmetic around a network needs, as data; conventions are numbers.

    architecture: what `posekit.nets.build` makes.
    input_size: (W, H) of a crop, px.  heatmap_size: (w, h), cells.
    color: channel order that the network takes.  mean, std: per channel, in 0..255 units.
    padding: a box is enlarged by this factor before it is cropped.
    crop_shrink: the enlarged box spans W - crop_shrink crop px (MSRA 0, UDP 1, half-pixel 0).
    crop_center: the box's centre lies at W/2 - crop_center (MSRA 0, UDP 0.5, half-pixel 0.5).
    map_scale, map_offset: x_crop = a * x_map + b per axis (x, y)
        (MSRA 4, 0; UDP (W-1)/(w-1), 0; half-pixel 4, 1.5).
    flip_shift: cells by which the mirrored view's maps, mirrored back, are moved right before
        the merge; `mirror_shift` derives it from a and b.
    sigma: of the heatmaps, cells.  decode: how a peak is refined; quarter-axis is mmpose 1.x's
        quarter, which differs from the others' (quarter) for peaks near a border.
    blur: odd side of the Gaussian that DARK and UDP blur with, cells; 1 is none.
    gate: strength of MoveNet's centre gate, 0 is none; other networks ignore it.
    """

    architecture: str
    input_size: tuple[int, int]
    heatmap_size: tuple[int, int]
    skeleton: Skeleton
    color: Color = "rgb"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    padding: float = 1.25
    crop_shrink: float = 0.0
    crop_center: float = 0.0
    map_scale: tuple[float, float] = (4.0, 4.0)
    map_offset: tuple[float, float] = (0.0, 0.0)
    flip_shift: float = 0.75
    sigma: float = 2.0
    decode: Decode = "dark"
    blur: int = 11
    gate: float = 0.0

    def __post_init__(self) -> None:
        sizes = (*self.input_size, *self.heatmap_size)
        if any(not isinstance(n, int) or n < 1 for n in sizes):
            raise InputError(f"spec: input_size and heatmap_size must be positive, got {sizes}")
        if self.color not in ("rgb", "bgr"):
            raise InputError(f"spec: color must be rgb or bgr, got {self.color!r}")
        if self.decode not in (ways := get_args(Decode)):
            raise InputError(f"spec: decode {self.decode!r}; wanted one of {', '.join(ways)}")
        if self.blur < 1 or self.blur % 2 == 0:
            raise InputError(f"spec: blur must be odd and positive, got {self.blur}")
        positive = (*self.std, *self.map_scale, self.padding, self.sigma)
        numbers = (*positive, *self.mean, *self.map_offset, self.flip_shift, self.gate)
        if not all(math.isfinite(v) for v in numbers) or min(positive) <= 0 or self.gate < 0:
            raise InputError(f"spec: numbers must be finite, scales above 0, got {numbers}")

    @property
    def mirror_shift(self) -> float:
        """The flip shift that a, b and the sizes imply, in cells.

        A joint at crop x lies at W - 1 - x in the mirrored crop; writing both in cells and
        mirroring the map back leaves this distance: MSRA 0.75, UDP 0, half-pixel 0.
        """
        a, b = self.map_scale[0], self.map_offset[0]
        return (self.input_size[0] - 1 - 2 * b) / a - (self.heatmap_size[0] - 1)

    def cells_to_crop(self, cells: NDArray[Any]) -> NDArray[Any]:
        """Crop px (..., 2), x then y, of places in heatmap cells; float32 stays float32."""
        scale, offset = self._map_numbers(cells)
        return np.asarray(cells * scale + offset)

    def crop_to_cells(self, points: NDArray[Any]) -> NDArray[Any]:
        """Places in heatmap cells (..., 2), x then y, of crop px; float32 stays float32."""
        scale, offset = self._map_numbers(points)
        return np.asarray((points - offset) / scale)

    def _map_numbers(self, places: NDArray[Any]) -> NDArray[Any]:
        """map_scale and map_offset, (2, 2), in the float type to compute in."""
        return np.array([self.map_scale, self.map_offset], np.result_type(places, np.float32))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`: each field present, none unknown. Raises InputError."""
        names = {field.name for field in dataclasses.fields(cls)}
        if names != set(data):
            raise InputError(f"spec: fields that differ: {sorted(names ^ set(data))}")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        values["skeleton"] = Skeleton.from_dict(data["skeleton"])
        return cls(**values)


@dataclass(frozen=True)
class DetectorSpec:
    """What a person detector's graph takes: uint8 (1, H, W, 3) RGB, letterboxed top left.

    Its graph gives boxes float32 (1, A, 4), xyxy in input px, and scores float32 (1, A).
    input_size: (W, H), px.  fill: grey value of the letterbox's empty part.
    """

    architecture: str
    input_size: tuple[int, int]
    fill: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises InputError."""
        try:
            width, height = data["input_size"]
            return cls(str(data["architecture"]), (int(width), int(height)), int(data["fill"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"detector spec: {error!r} in {dict(data)}") from error
