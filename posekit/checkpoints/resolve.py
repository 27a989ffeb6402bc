"""The spec of a checkpoint from flags, configs, names and families, in order of precedence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from posekit.errors import CheckpointError
from posekit.skeletons import AIC_14, COCO_17, MPII_16
from posekit.types import Color, Decode, ModelSpec, Skeleton

Convention = Literal["msra", "udp", "half-pixel"]
Family = Literal[
    "simple-baseline",
    "hrnet",
    "semi",
    "mmpose",
    "mmpose 1.x",
    "vitpose",
    "hugging face",
    "movenet",
]
Source = Literal[
    "flag",
    "config beside it",
    "config in the file",
    "file name",
    "weights",
    "names of keypoints",
    "family default",
]
Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class SpecHints:
    """What a state dict does not contain; None where this source has no value.

    input_size: (W, H), px.  skeleton_stated: what its file states of mirror, sigmas and bones,
        None for a skeleton that is not from one.  color: channel order of the network's input.
    mean, std: per channel, 0..255.  padding: a box grows by this factor.
    convention: how boxes become crops and cells crop px: msra, udp or half-pixel.
    flip_shift: cells, right.  sigma: cells.  decode, blur: as in ModelSpec.
    """

    input_size: tuple[int, int] | None = None
    skeleton: Skeleton | None = None
    skeleton_stated: frozenset[str] | None = None
    color: Color | None = None
    mean: Triple | None = None
    std: Triple | None = None
    padding: float | None = None
    convention: Convention | None = None
    flip_shift: float | None = None
    sigma: float | None = None
    decode: Decode | None = None
    blur: int | None = None


@dataclass(frozen=True)
class ResolvedField:
    """A decided field with its source; `assumed`: a default, since no source has it."""

    name: str
    value: Any
    source: Source
    assumed: bool = False

    def __str__(self) -> str:
        mark = ", assumed" if self.assumed else ""
        return f"{self.name}: {_shown(self.value)} ({self.source}{mark})"

    def to_dict(self) -> dict[str, Any]:
        """For a bundle's provenance: name, value, source, assumed."""
        return {
            "name": self.name,
            "value": _shown(self.value),
            "source": self.source,
            "assumed": self.assumed,
        }


def _shown(value: Any) -> str:
    if isinstance(value, Skeleton):
        return f"{value.name}, {len(value)} keypoints"
    if isinstance(value, tuple):
        return " x ".join(f"{v:g}" for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


_IMAGENET_MEAN, _IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_BY_COUNT = {17: COCO_17, 16: MPII_16, 14: AIC_14}
# BGR is not a mistake: these were trained on OpenCV's order, with the RGB means in place.
_COLORS: dict[Family, Color] = {
    "simple-baseline": "bgr",
    "hrnet": "rgb",
    "semi": "bgr",
    "mmpose": "rgb",
    "mmpose 1.x": "rgb",
    "vitpose": "rgb",
    "hugging face": "rgb",
    "movenet": "rgb",
}
_UDP: tuple[Family, ...] = ("vitpose", "hugging face")


class _Ledger:
    """Takes each field from the first source that has it, and records which."""

    def __init__(self, sources: Mapping[Source, SpecHints]) -> None:
        self.sources = sources
        self.items: list[ResolvedField] = []

    def take(self, name: str, default: Any) -> Any:
        """The first source's value of the field `name`, or the default, assumed."""
        for source, hints in self.sources.items():
            value = getattr(hints, name)
            if value is not None:
                self.items.append(ResolvedField(name, value, source))
                return value
        self.items.append(ResolvedField(name, default, "family default", assumed=True))
        return default


def resolve(
    architecture: str, family: Family, joints: int, *, hints: Mapping[Source, SpecHints]
) -> tuple[ModelSpec, list[ResolvedField]]:
    """The spec that the sources give, in their order, and an item for each field.

    Raises CheckpointError where they contradict the weights or one another.
    """
    ledger = _Ledger(hints)
    skeleton = _skeleton(ledger, joints)
    size = ledger.take("input_size", (256, 256) if skeleton is MPII_16 else (192, 256))
    if min(size) < 4 or size[0] % 4 or size[1] % 4:
        raise CheckpointError(f"input of {size[0]} x {size[1]} px; wanted multiples of 32 or 16")
    spec = ModelSpec(
        architecture=architecture,
        input_size=size,
        heatmap_size=(size[0] // 4, size[1] // 4),
        skeleton=skeleton,
        color=ledger.take("color", _COLORS[family]),
        mean=ledger.take("mean", _IMAGENET_MEAN),
        std=ledger.take("std", _IMAGENET_STD),
        padding=ledger.take("padding", 1.25),
        sigma=float(ledger.take("sigma", 3.0 if max(size) >= 384 else 2.0)),
    )
    return _with_convention(spec, family, ledger), ledger.items


def _skeleton(ledger: _Ledger, joints: int) -> Skeleton:
    """The skeleton, which must have as many keypoints as the head gives maps."""
    skeleton: Skeleton | None = ledger.take("skeleton", _BY_COUNT.get(joints))
    if skeleton is None:
        raise CheckpointError(
            f"the head gives {joints} maps and no source names the skeleton; give --skeleton FILE "
            "(TOML or JSON: keypoints, mirror, bones, sigmas)"
        )
    if not len(skeleton):
        raise CheckpointError(
            f"the name says {skeleton.name}, whose keypoints posekit does not know; give "
            "--skeleton FILE (TOML or JSON: keypoints, mirror, bones, sigmas)"
        )
    if len(skeleton) != joints:
        raise CheckpointError(
            f"the head gives {joints} maps, but skeleton {skeleton.name} has {len(skeleton)} "
            "keypoints; give the one it was trained with by --skeleton"
        )
    ledger.items += _parts(skeleton, ledger)
    return skeleton


def _parts(skeleton: Skeleton, ledger: _Ledger) -> list[ResolvedField]:
    """What the file of a skeleton states or leaves to assume; nothing of one that posekit has."""
    source, hints = next(
        (each for each in ledger.sources.items() if each[1].skeleton is skeleton), (None, None)
    )
    if source is None or hints is None or hints.skeleton_stated is None:
        return []
    pairs = sum(k < m for k, m in enumerate(skeleton.mirror))
    low, high = min(skeleton.sigmas), max(skeleton.sigmas)
    texts = {
        "mirror": f"{pairs} pairs" if skeleton.mirror else "not known, so the flip test is off",
        "sigmas": f"{low:g} to {high:g}" if low < high else f"{low:g} each",
        "bones": str(len(skeleton.bones)),
    }
    default: Source = "names of keypoints" if skeleton.mirror else "family default"
    origin: dict[str, Source] = {"mirror": default}
    return [
        ResolvedField(name, text, source)
        if name in hints.skeleton_stated
        else ResolvedField(name, text, origin.get(name, "family default"), assumed=True)
        for name, text in texts.items()
    ]


def _with_convention(spec: ModelSpec, family: Family, ledger: _Ledger) -> ModelSpec:
    """Crop, cells, flip shift and decode as numbers. Raises CheckpointError."""
    convention: Convention = ledger.take("convention", "udp" if family in _UDP else "msra")
    (width, height), (columns, rows) = spec.input_size, spec.heatmap_size
    match convention:
        case "udp":
            scale = ((width - 1) / (columns - 1), (height - 1) / (rows - 1))
            spec = replace(spec, crop_shrink=1.0, crop_center=0.5, map_scale=scale)
        case "half-pixel":
            spec = replace(spec, crop_center=0.5, map_offset=(1.5, 1.5))
        case "msra":
            pass
    shift = float(ledger.take("flip_shift", 1.0 if convention == "msra" else 0.0))
    # MSRA's own 1 is a habit; its exact value is 0.75.
    if abs(shift - spec.mirror_shift) > 0.5:
        raise CheckpointError(
            f"a flip shift of {shift:g} cells does not agree with the convention {convention}, "
            f"which needs {spec.mirror_shift:g}; give --convention or --flip-shift"
        )
    plain: Decode = "quarter-axis" if family == "mmpose 1.x" else "quarter"
    decode = ledger.take("decode", {"msra": plain, "udp": "udp"}.get(convention, "dark"))
    blur = spec.blur
    if decode in ("dark", "udp"):
        blur = ledger.take("blur", 17 if spec.sigma >= 3 else 11)
    return replace(spec, flip_shift=shift, decode=decode, blur=blur)
