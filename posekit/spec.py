"""What a model is, as data: its keypoints and the arithmetic around its network."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from posekit.errors import InputError
from posekit.inputs.parsing import number, numbers, shown

Color = Literal["rgb", "bgr"]
Decode = Literal["argmax", "quarter", "quarter-axis", "dark", "udp"]
_LARGEST_SIDE = 8192  # px of a crop, cells of a map
_WIDEST_BLUR = 999
_MOST_KEYPOINTS = 4096
_ABOVE_0 = 1e-6
# Field, how many numbers, lowest and highest of each.
_SPEC_RANGES = (
    ("mean", 3, -1e6, 1e6),
    ("std", 3, _ABOVE_0, 1e6),
    ("padding", 1, 0.01, 100.0),
    ("crop_shrink", 1, -1e4, 1e4),
    ("crop_center", 1, -1e4, 1e4),
    ("map_scale", 2, _ABOVE_0, 1e4),
    ("map_offset", 2, -1e4, 1e4),
    ("flip_shift", 1, -1e4, 1e4),
    ("sigma", 1, _ABOVE_0, 1e4),
    ("gate", 1, 0.0, 1e4),
)


@dataclass(frozen=True)
class Skeleton:
    """What the keypoints are and how they hang together.

    keypoints: K names.  bones: pairs of indices.
    mirror: K indices; keypoint k of a mirrored image is keypoint mirror[k]. Empty where that is not
        known: then nothing may be averaged with a mirrored view.
    sigmas: K OKS constants, as a share of the person's size (COCO: sigma, not 2 sigma).
    """

    name: str
    keypoints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    mirror: tuple[int, ...]
    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        count = len(self.keypoints)
        if count > _MOST_KEYPOINTS:
            raise InputError(
                f"skeleton {self.name}: {count} keypoints; wanted at most {_MOST_KEYPOINTS}"
            )
        numbers(self.sigmas, name=f"skeleton {self.name}: sigmas", low=0, high=1e6)
        if len(self.mirror) not in (0, count) or len(self.sigmas) != count:
            raise InputError(
                f"skeleton {self.name}: {count} keypoints, {len(self.mirror)} mirror indices and "
                f"{len(self.sigmas)} sigmas; wanted as many of each"
            )
        mirror = self.mirror or tuple(range(count))
        if sorted(mirror) != list(range(count)) or any(
            mirror[mirror[k]] != k for k in range(count)
        ):
            raise InputError(f"skeleton {self.name}: mirror must pair keypoints, got {self.mirror}")
        if any(not 0 <= end < count for bone in self.bones for end in bone):
            raise InputError(f"skeleton {self.name}: a bone names keypoints beyond {count - 1}")

    def __len__(self) -> int:
        return len(self.keypoints)

    def index(self, keypoint: str) -> int:
        """Where a keypoint of this name stands. Raises InputError with the nearest names."""
        if keypoint in self.keypoints:
            return self.keypoints.index(keypoint)
        near = difflib.get_close_matches(str(keypoint), self.keypoints) or self.keypoints[:8]
        raise InputError(
            f"skeleton {self.name}: has no keypoint {shown(keypoint)}; did you mean "
            f"{' or '.join(near)}?"
        )

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
                bones=tuple((_index(a), _index(b)) for a, b in data["bones"]),
                mirror=tuple(_index(k) for k in data["mirror"]),
                sigmas=tuple(numbers(data["sigmas"], name="skeleton: sigmas")),
            )
        except (KeyError, TypeError, ValueError) as error:
            reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(
                f"skeleton: {reason}".replace("skeleton: skeleton", "skeleton")
            ) from error


def _index(value: object) -> int:
    return int(number(value, name="skeleton: an index", low=0, high=_MOST_KEYPOINTS, whole=True))


def _check_size(value: object, name: str) -> None:
    """Raises InputError unless it is two whole sides within the largest."""
    for side in numbers(value, name=name, count=2):
        number(side, name=name, low=1, high=_LARGEST_SIDE, whole=True)
    if not all(isinstance(side, int) for side in value):  # type: ignore[attr-defined]
        raise InputError(f"{name}: wanted two integers, got {shown(value)}")


@dataclass(frozen=True)
class ModelSpec:
    """All that the arithmetic around a network needs, as data; conventions are numbers.

    architecture: what `posekit.nets.build` makes.
    input_size: (W, H) of a crop, px.  heatmap_size: (w, h), cells.
    color: channel order that the network takes.  mean, std: per channel, in 0..255 units.
    padding: a box is enlarged by this factor before it is cropped.
    crop_shrink: the enlarged box spans W - crop_shrink crop px (MSRA 0, UDP 1, half-pixel 0).
    crop_center: the box's center lies at W/2 - crop_center (MSRA 0, UDP 0.5, half-pixel 0.5).
    map_scale, map_offset: x_crop = a * x_map + b per axis (x, y)
        (MSRA 4, 0; UDP (W-1)/(w-1), 0; half-pixel 4, 1.5).
    flip_shift: cells by which the mirrored view's maps, mirrored back, are moved right before
        the merge; `mirror_shift` derives it from a and b.
    sigma: of the heatmaps, cells.  decode: how a peak is refined; quarter-axis is mmpose 1.x's
        quarter, which differs from the others' (quarter) for peaks near a border.
    blur: odd side of the Gaussian that DARK and UDP blur with, cells; 1 is none.
    gate: strength of MoveNet's center gate, 0 is none; other networks ignore it.
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
        if not isinstance(self.architecture, str):
            raise InputError(f"spec: architecture must be a name, got {shown(self.architecture)}")
        for name in ("input_size", "heatmap_size"):
            _check_size(getattr(self, name), f"spec: {name}")
        if self.color not in ("rgb", "bgr"):
            raise InputError(f"spec: color must be rgb or bgr, got {shown(self.color)}")
        if self.decode not in (ways := get_args(Decode)):
            raise InputError(f"spec: decode {shown(self.decode)}; wanted one of {', '.join(ways)}")
        number(self.blur, name="spec: blur", low=1, high=_WIDEST_BLUR, whole=True)
        if self.blur % 2 == 0:
            raise InputError(f"spec: blur must be odd, got {self.blur}")
        for name, count, low, high in _SPEC_RANGES:
            value = getattr(self, name)
            values = [value] if count == 1 else value
            numbers(values, name=f"spec: {name}", count=count, low=low, high=high)

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
        if not isinstance(data, Mapping):
            raise InputError(f"spec: wanted a table, got {shown(data)}")
        if names != set(data):
            raise InputError(f"spec: fields that differ: {sorted(names ^ set(map(str, data)))}")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        values["skeleton"] = Skeleton.from_dict(data["skeleton"])
        return cls(**values)


@dataclass(frozen=True)
class DetectorSpec:
    """What a person detector's graph takes: uint8 (1, H, W, 3) RGB, letterboxed top left.

    Its graph gives boxes float32 (1, A, 4), xyxy in input px, and scores float32 (1, A).
    input_size: (W, H), px.  fill: gray value of the letterbox's empty part.
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
        if not isinstance(data, Mapping) or not {"architecture", "input_size", "fill"} <= set(data):
            raise InputError(
                f"detector spec: wanted architecture, input_size and fill, got {shown(data)}"
            )
        _check_size(data["input_size"], "detector spec: input_size")
        fill = number(data["fill"], name="detector spec: fill", low=0, high=255, whole=True)
        width, height = data["input_size"]
        return cls(str(data["architecture"]), (width, height), int(fill))
