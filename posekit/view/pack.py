"""Results as compact text for a page: quantized arrays in base64, and a table of facts."""

from __future__ import annotations

import base64
import math
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit.types import Float32
from posekit.view.events import MAX_EVENTS, id_changes
from posekit.view.results import Results, to_uint8

MAX_VALUES = 10_000_000
"""Keypoints of a page; longer results are shown with each n-th frame."""
_MISSING = -32768  # of a coordinate that is not finite
_LARGEST = 32767
_TYPES = {"<f8": "f8", "<i4": "i4", "<i2": "i2", "|u1": "u1"}


def thinned(results: Results, limit: int = MAX_VALUES) -> tuple[Results, int]:
    """Results with at most about `limit` keypoints, and the step between their frames."""
    step = max(1, math.ceil(results.persons.scores.size / limit))
    return (results if step == 1 else results.every(step)), step


def pack(results: Results) -> tuple[dict[str, Any], dict[str, str]]:
    """(facts, arrays): `facts` is plain values, `arrays` text by name, "<type>:<base64>".

    Coordinates are int16 in steps of `facts["step_px"]`, scores uint8 in steps of 1/255.
    """
    persons, known = results.persons, np.unique(results.persons.ids)
    step_px = _step_px(results)
    has_raw = not np.array_equal(persons.points, persons.raw_points, equal_nan=True)
    is_calibrated = bool(np.isfinite(persons.confidence).any())
    changes = id_changes(results)
    size = results.sizes.max(0).tolist()
    facts = {
        "model": results.origin.model,
        "source": results.origin.source,
        "skeleton": {
            "name": results.origin.skeleton.name,
            "keypoints": list(results.origin.skeleton.keypoints),
            "bones": [list(bone) for bone in results.origin.skeleton.bones],
            "mirror": list(results.origin.skeleton.mirror),
        },
        "size": size,
        "fps": results.origin.fps,
        "files": list(results.files),
        "tracked": results.tracked,
        "ids": known.tolist(),
        "step_px": step_px,
        "changes": [asdict(each) for each in changes[:MAX_EVENTS]],
        "changes_left_out": max(0, len(changes) - MAX_EVENTS),
    }
    arrays = {
        "times": _text(results.times_s.astype("<f8")),
        "frames": _text(results.frames.astype("<i4")),
        "starts": _text(results.starts.astype("<i4")),
        "tracks": _text(np.searchsorted(known, persons.ids).astype("<i4")),
        "boxes": _text(_quantized(persons.boxes, step_px)),
        "points": _text(_quantized(persons.points, step_px)),
        "scores": _text(to_uint8(persons.scores)),
    }
    if has_raw:
        arrays["raw"] = _text(_quantized(persons.raw_points, step_px))
    if is_calibrated:
        arrays["confidence"] = _text(to_uint8(persons.confidence))
    if (results.sizes != size).any():
        arrays["sizes"] = _text(results.sizes.astype("<i4").reshape(-1))
    return facts, arrays


def _step_px(results: Results) -> float:
    """A power of two at which twice the frame fits int16 on either side of 0."""
    reach = 2 * float(results.sizes.max())
    return float(2.0 ** max(-5, math.ceil(math.log2(reach / _LARGEST))))


def _quantized(values: Float32, step_px: float) -> NDArray[np.int16]:
    """Steps as int16; beyond its range the nearest value, not finite: the smallest."""
    steps = np.rint(values.astype(np.float64) / step_px).clip(-_LARGEST, _LARGEST)
    return np.where(np.isfinite(values), steps, _MISSING).astype("<i2")


def _text(array: NDArray[Any]) -> str:
    kind = _TYPES[array.dtype.str]
    return f"{kind}:{base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()}"
