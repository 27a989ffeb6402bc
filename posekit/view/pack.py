"""Results as compact text for a page: quantized arrays in base64, and a table of facts."""

from __future__ import annotations

import base64
import math
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit.types import Float32, Int64
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
    known, step_px = np.unique(results.persons.ids), _step_px(results)
    return _facts(results, known, step_px), _arrays(results, known, step_px)


def _facts(results: Results, known: Int64, step_px: float) -> dict[str, Any]:
    """known: the ids, whose positions are the tracks of the page."""
    skeleton, changes = results.origin.skeleton, id_changes(results)
    return {
        "model": results.origin.model,
        "source": results.origin.source,
        "skeleton": {
            "name": skeleton.name,
            "keypoints": list(skeleton.keypoints),
            "bones": [list(bone) for bone in skeleton.bones],
        },
        "size": list(results.size),
        "fps": results.origin.fps,
        "files": list(results.files),
        "tracked": results.tracked,
        "ids": known.tolist(),
        "step_px": step_px,
        "changes": [asdict(each) for each in changes[:MAX_EVENTS]],
        "changes_left_out": max(0, len(changes) - MAX_EVENTS),
    }


def _arrays(results: Results, known: Int64, step_px: float) -> dict[str, str]:
    persons = results.persons
    arrays = {
        "times": _text(results.times_s.astype("<f8")),
        "frames": _text(results.frames.astype("<i4")),
        "starts": _text(results.starts.astype("<i4")),
        "tracks": _text(np.searchsorted(known, persons.ids).astype("<i4")),
        "boxes": _text(_quantized(persons.boxes, step_px)),
        "points": _text(_quantized(persons.points, step_px)),
        "scores": _text(to_uint8(persons.scores)),
    }
    if not np.array_equal(persons.points, persons.raw_points, equal_nan=True):
        arrays["raw"] = _text(_quantized(persons.raw_points, step_px))
    if np.isfinite(persons.confidence).any():
        arrays["confidence"] = _text(to_uint8(persons.confidence))
    if (results.sizes != results.size).any():
        arrays["sizes"] = _text(results.sizes.astype("<i4").reshape(-1))
    return arrays


def _step_px(results: Results) -> float:
    """A power of two at which twice the frame fits int16 on either side of 0."""
    reach = 2.0 * max(results.size)
    return float(2.0 ** max(-5, math.ceil(math.log2(reach / _LARGEST))))


def _quantized(values: Float32, step_px: float) -> NDArray[np.int16]:
    """Steps as int16; beyond its range the nearest value, not finite: the smallest."""
    steps = np.rint(values.astype(np.float64) / step_px).clip(-_LARGEST, _LARGEST)
    return np.where(np.isfinite(values), steps, _MISSING).astype("<i2")


def _text(array: NDArray[Any]) -> str:
    kind = _TYPES[array.dtype.str]
    return f"{kind}:{base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()}"
