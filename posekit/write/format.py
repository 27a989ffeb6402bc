"""What an output format is, and how numbers become text in all of them."""

from __future__ import annotations

import json
import math
from typing import Any, Generic, TypeVar

from posekit.atomic import AtomicFile, AtomicFolder
from posekit.types import Frame, Poses

VISIBLE = 0.2  # keypoint score from which a point counts as visible, as in the MSRA protocol

Output = TypeVar("Output", AtomicFile, AtomicFolder)


class Format(Generic[Output]):
    """One output in the making, opened by its subclass from (path, header).

    out: what is committed or aborted at the end. Any method may raise OSError: Writers explains it.
    """

    out: Output

    def write(self, frame: Frame, poses: Poses) -> None:
        """Append one frame."""
        raise NotImplementedError

    def finish(self) -> None:
        """Append what a complete output ends with; nothing by default."""

    def discard(self) -> None:
        """Let go of what is held beside `out`; nothing by default."""


def strict_json(data: Any, *, missing: float | None = None) -> str:
    """`data` as one line of standard JSON; numbers that are not finite become `missing`."""
    try:
        return json.dumps(data, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(data, missing), ensure_ascii=False, allow_nan=False)


def _finite(data: Any, missing: float | None) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value, missing) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value, missing) for value in data]
    return missing if isinstance(data, float) and not math.isfinite(data) else data


def person_ids(poses: Poses) -> list[int]:
    """Track ids, or the place in the frame where persons are not tracked."""
    return list(range(len(poses))) if poses.ids is None else [int(n) for n in poses.ids]
