"""Packed results are close enough to what they stand for, and bounded in size."""

import base64
from dataclasses import replace

import numpy as np
import pytest

from posekit.view.pack import pack, thinned
from tests.pages.results import box, results_of

KINDS = {"f8": "<f8", "i4": "<i4", "i2": "<i2", "u1": "u1"}


def unpacked(text: str) -> np.ndarray:
    kind, _, data = text.partition(":")
    return np.frombuffer(base64.b64decode(data), KINDS[kind])


@pytest.mark.parametrize("size", [(160, 96), (1920, 1080), (7680, 4320), (100_000, 20)])
def test_points_lie_within_half_a_step(size: tuple[int, int]) -> None:
    results = results_of([{3: box(10), 8: box(60)}, {8: box(61)}], size=size)
    facts, arrays = pack(results)
    step = facts["step_px"]
    assert step <= 4 * max(size) / 32767 or step == 2**-5
    for name, values in (("points", results.persons.points), ("boxes", results.persons.boxes)):
        found = unpacked(arrays[name]).reshape(values.shape) * step
        np.testing.assert_allclose(found, values, atol=step / 2 + 1e-5)
    scores = unpacked(arrays["scores"]).reshape(results.persons.scores.shape) / 255
    np.testing.assert_allclose(scores, results.persons.scores, atol=0.5 / 255 + 1e-6)
    assert facts["ids"] == [3, 8]
    assert unpacked(arrays["tracks"]).tolist() == [0, 1, 1]
    assert unpacked(arrays["starts"]).tolist() == [0, 2, 3]


def test_what_is_no_number_is_marked_and_what_is_far_is_bounded() -> None:
    results = results_of([{1: box(10)}])
    points = results.persons.points.copy()
    points[0, 0], points[0, 1] = np.nan, 1e9
    moved = replace(results, persons=replace(results.persons, points=points))
    found = unpacked(pack(moved)[1]["points"]).reshape(17, 2)
    assert found[0].tolist() == [-32768, -32768]
    assert found[1].tolist() == [32767, 32767]


def test_only_what_differs_is_packed() -> None:
    results = results_of([{1: box(10)}])
    assert "raw" in pack(results)[1]
    persons = results.persons
    plain = replace(results, persons=replace(persons, raw_points=persons.points))
    assert not {"raw", "confidence", "sizes"} & set(pack(plain)[1])
    calibrated = replace(results, persons=replace(persons, confidence=persons.scores))
    assert "confidence" in pack(calibrated)[1]


def test_long_results_keep_each_nth_frame() -> None:
    results = results_of([{n % 3: box(10)} for n in range(10)])
    thin, step = thinned(results, limit=17 * 4)
    assert step == 3
    assert thin.frames.tolist() == [0, 3, 6, 9]
    assert thin.persons.ids.tolist() == [0, 0, 0, 0]
    np.testing.assert_array_equal(thin.persons.points, results.persons.points[::3])
    assert thinned(results) == (results, 1)
