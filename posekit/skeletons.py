"""Skeletons as data: names, bones, mirror pairs and OKS constants; custom ones from files."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from posekit.errors import InputError
from posekit.inputs.parsing import numbers, read_json, read_toml, shown
from posekit.types import Skeleton

_LARGEST = 1 << 20  # bytes of a file
# What a skeleton file without sigmas gets; near the middle of COCO's.
DEFAULT_SIGMA = 0.06
OPTIONAL = ("mirror", "sigmas", "bones")
"""Fields that a skeleton file may leave out."""
_SIDES = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "l": "r", "L": "R"}
_SIDES |= {right: left for left, right in _SIDES.items()}

# Source: COCO 2017 person_keypoints categories; sigmas from pycocotools (half of its 2 sigma).
COCO_17 = Skeleton(
    name="coco_17",
    keypoints=(
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    ),
    bones=(
        (15, 13),
        (13, 11),
        (16, 14),
        (14, 12),
        (11, 12),
        (5, 11),
        (6, 12),
        (5, 6),
        (5, 7),
        (6, 8),
        (7, 9),
        (8, 10),
        (1, 2),
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 5),
        (4, 6),
    ),
    mirror=(0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15),
    sigmas=(
        0.026,
        0.025,
        0.025,
        0.035,
        0.035,
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        0.107,
        0.107,
        0.087,
        0.087,
        0.089,
        0.089,
    ),
)

# Source: MPII Human Pose (Andriluka et al., CVPR 2014), order of the annotation. It publishes no
# sigmas: COCO's where COCO has the joint, else those of the joint beside it.
MPII_16 = Skeleton(
    name="mpii_16",
    keypoints=(
        "right_ankle",
        "right_knee",
        "right_hip",
        "left_hip",
        "left_knee",
        "left_ankle",
        "pelvis",
        "thorax",
        "upper_neck",
        "head_top",
        "right_wrist",
        "right_elbow",
        "right_shoulder",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
    ),
    bones=(
        (0, 1),
        (1, 2),
        (2, 6),
        (6, 3),
        (3, 4),
        (4, 5),
        (6, 7),
        (7, 8),
        (8, 9),
        (10, 11),
        (11, 12),
        (12, 7),
        (7, 13),
        (13, 14),
        (14, 15),
    ),
    mirror=(5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10),
    sigmas=(
        0.089,
        0.087,
        0.107,
        0.107,
        0.087,
        0.089,
        0.107,
        0.079,
        0.079,
        0.026,
        0.062,
        0.072,
        0.079,
        0.079,
        0.072,
        0.062,
    ),
)

# Source: AI Challenger keypoints (Wu et al., 2017); sigmas of its own evaluation program.
AIC_14 = Skeleton(
    name="aic_14",
    keypoints=(
        "right_shoulder",
        "right_elbow",
        "right_wrist",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
        "right_hip",
        "right_knee",
        "right_ankle",
        "left_hip",
        "left_knee",
        "left_ankle",
        "head_top",
        "neck",
    ),
    bones=(
        (2, 1),
        (1, 0),
        (0, 13),
        (13, 3),
        (3, 4),
        (4, 5),
        (8, 7),
        (7, 6),
        (6, 9),
        (9, 10),
        (10, 11),
        (12, 13),
        (0, 6),
        (3, 9),
    ),
    mirror=(3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8, 12, 13),
    sigmas=(
        0.01388152,
        0.01515228,
        0.01057665,
        0.01417709,
        0.01497891,
        0.01402144,
        0.03909642,
        0.03686941,
        0.01981803,
        0.03843971,
        0.03412318,
        0.02415081,
        0.01291456,
        0.01236173,
    ),
)


def find(name: str | Path) -> Skeleton:
    """The skeleton that `name` means: coco, mpii, aic, or a .toml or .json file.

    Raises InputError.
    """
    match str(name):
        case "coco" | "coco_17":
            return COCO_17
        case "mpii" | "mpii_16":
            return MPII_16
        case "aic" | "aic_14":
            return AIC_14
        case other if Path(other).suffix in (".toml", ".json"):
            return read(other)
        case other:
            raise InputError(f"skeleton {other!r}: wanted coco, mpii, aic or a .toml or .json file")


def read(path: str | Path) -> Skeleton:
    """A custom skeleton from a TOML or JSON file; see `parse` for its fields. Raises InputError."""
    path, data = Path(path), _table(Path(path))
    try:
        return parse({"name": path.stem, **data})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def stated(name: str | Path) -> frozenset[str]:
    """Which of mirror, bones and sigmas of `find(name)` are known; the others are assumed.

    Raises InputError.
    """
    path = Path(name)
    fields = _table(path) if path.suffix in (".toml", ".json") else OPTIONAL
    return frozenset(OPTIONAL) & frozenset(fields)


def _table(path: Path) -> dict[str, Any]:
    data = read_json(path, max_bytes=_LARGEST) if path.suffix == ".json" else read_toml(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: wanted a table of keypoints, mirror, bones and sigmas")
    return data


def parse(data: Mapping[str, Any]) -> Skeleton:
    """A skeleton from plain data: keypoints (names), mirror and bones (pairs), sigmas, name.

    Pairs hold names or indices; a keypoint in no mirror pair is its own mirror image. Without
    mirror the pairs are those of `mirror_of`; bones and sigmas (one, or K) may be left out too.
    Raises InputError.
    """
    known = {"name", "keypoints", "mirror", "bones", "sigmas"}
    names = data.get("keypoints")
    if strange := sorted(set(data) - known):
        raise InputError(f"skeleton: unknown fields {shown(strange)}; known are {sorted(known)}")
    if not _is_list(names) or not names or not all(isinstance(n, str) and n for n in names):
        raise InputError(f"skeleton: keypoints must be a list of names, got {shown(names)}")
    if len(set(names)) != len(names):
        raise InputError("skeleton: two keypoints have the same name")
    sigmas = data.get("sigmas", DEFAULT_SIGMA)
    values = list(sigmas) if _is_list(sigmas) else [sigmas] * len(names)
    values = numbers(values, name="skeleton: sigmas", low=1e-6, high=1)
    return Skeleton(
        name=str(data.get("name", "custom")),
        keypoints=tuple(names),
        bones=tuple(_pairs(data.get("bones", []), names, "bones")),
        mirror=(
            _mirror(_pairs(data["mirror"], names, "mirror"), len(names))
            if "mirror" in data
            else mirror_of(names)
        ),
        sigmas=tuple(values),
    )


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _pairs(pairs: Any, names: Sequence[str], field: str) -> list[tuple[int, int]]:
    """Pairs of names or indices as pairs of indices."""
    if not _is_list(pairs) or not all(_is_list(pair) and len(pair) == 2 for pair in pairs):
        raise InputError(f"skeleton: {field} must be a list of pairs, got {shown(pairs)}")
    return [(_index(a, names, field), _index(b, names, field)) for a, b in pairs]


def _index(end: Any, names: Sequence[str], field: str) -> int:
    if isinstance(end, str) and end in names:
        return names.index(end)
    if isinstance(end, int) and not isinstance(end, bool) and 0 <= end < len(names):
        return end
    raise InputError(f"skeleton: {field} names {shown(end)}, which is no keypoint")


def _mirror(pairs: list[tuple[int, int]], count: int) -> tuple[int, ...]:
    """mirror[k] for K keypoints; a keypoint may be in one pair only."""
    mirror = list(range(count))
    for a, b in pairs:
        if a == b or mirror[a] != a or mirror[b] != b:
            raise InputError(f"skeleton: mirror pairs a keypoint twice, at {(a, b)}")
        mirror[a], mirror[b] = b, a
    return tuple(mirror)


def mirror_of(keypoints: Sequence[str]) -> tuple[int, ...]:
    """Mirror indices by the names: left_*/right_*, l_*/r_*, L*/R*, also further on in a name.

    A name without a side is its own mirror image. Empty where no name has a side, or one with a
    side has no counterpart: then the pairs are not known.
    """
    names = {name: k for k, name in enumerate(keypoints)}
    mirror = []
    for name in keypoints:
        other = _other_side(name, names)
        if other not in names:
            return ()
        mirror.append(names[other])
    return tuple(mirror) if any(m != k for k, m in enumerate(mirror)) else ()


def _other_side(name: str, names: Collection[str]) -> str:
    """A keypoint's name with its sides exchanged; the name itself where it has none."""
    words = re.findall(r"[A-Z](?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[^A-Za-z]+", name)
    other = "".join(_SIDES.get(word, word) for word in words)
    if other == name and name[0] in "LR":  # LHIP, Lhip; but not `Root of tail`
        initial = _SIDES[name[0]] + name[1:]
        return initial if initial in names else name
    return other


def plain(name: str) -> str:
    """A keypoint's name in lower case with underscores: `Head top` is `head_top`."""
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")
