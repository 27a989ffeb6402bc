"""`verify` says what it measured, and takes no stored figure on trust."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from typer.testing import CliRunner

from posekit import bundle
from posekit.bundle import Bundle
from posekit.cli import app
from posekit.diagnostics.verify import measure, verify
from posekit.errors import BundleError


@pytest.fixture(scope="module")
def lightning() -> Bundle:
    """With one graph: each takes a second to open."""
    opened = Bundle.open(bundle.find("movenet-lightning"))
    return dataclasses.replace(opened, graphs={"plain": opened.graphs["plain"]})


def changed(opened: Bundle, **parts: bytes) -> Bundle:
    extras = {**opened.extras, **{f"{k.replace('_', '.')}": v for k, v in parts.items()}}
    return dataclasses.replace(opened, extras=extras)


def with_reference(opened: Bundle, **arrays: np.ndarray[Any, Any] | None) -> Bundle:
    every = {**opened.reference, **arrays}
    return changed(
        opened, reference_safetensors=save({k: v for k, v in every.items() if v is not None})
    )


def with_parity(opened: Bundle, plain: Any) -> Bundle:
    return changed(opened, parity_json=json.dumps({"plain": plain}).encode())


def test_without_a_reference_each_graph_runs_once_and_is_reported(
    lightning: Bundle, tmp_path: Path
) -> None:
    extras = {k: v for k, v in lightning.extras.items() if k != "reference.safetensors"}
    bare = dataclasses.replace(lightning, extras=extras)
    assert measure(bare) == {"plain": None}
    assert verify(bare) == {}
    path = tmp_path / "bare.posekit"
    bare.save(path)
    text = CliRunner().invoke(app, ["verify", str(path)], catch_exceptions=False).output
    assert "plain: runs; parity not measured" in text
    done = CliRunner().invoke(app, ["verify", str(path), "--json"], catch_exceptions=False)
    result = json.loads(done.output)
    assert (result["parity"], result["shift_px"], result["ran"]) == ({}, {}, ["plain"])


def test_a_detector_is_run_too() -> None:
    detector = Bundle.open(bundle.find("nanodet-person"))
    assert measure(detector) == {"detect": None}
    name = next(iter(detector.weights))
    broken = {**detector.weights, name: np.full_like(detector.weights[name], np.nan)}
    with pytest.raises(BundleError, match=r"detect gives values that are not finite"):
        measure(dataclasses.replace(detector, weights=broken))


NAN = np.full((3, 17, 2), np.nan, np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"plain_points": NAN}, "plain_points of its reference are not finite"),
        ({"plain_scores": np.full((3, 17), np.inf, np.float32)}, "plain_scores of its reference"),
        ({"plain_scores": np.ones((2, 17), np.float32)}, "plain_scores of its reference"),
        ({"plain_points": np.ones((3, 17, 2), np.int64)}, "plain_points of its reference"),
        ({"plain_points": None}, "plain_points of its reference"),
        ({"crops": None}, "no crops"),
        ({"crops": np.zeros((3, 64, 64, 3), np.uint8)}, "no crops"),
        ({"crops": np.zeros((0, 192, 192, 3), np.uint8)}, "of 0 crops"),
    ],
)
def test_a_reference_without_an_output_is_damage(
    arrays: Mapping[str, Any], message: str, lightning: Bundle
) -> None:
    with pytest.raises(BundleError, match=f"damaged: .*{message}"):
        measure(with_reference(lightning, **arrays))


@pytest.mark.parametrize(
    "stored",
    [
        {"max_px": 1e9},
        {"max_px": -1},
        {"max_px": True},
        {"max_px": "1"},
        {"max_px": 50.0, "mean_px": 40.0},
        {"max_px": 1.0, "mean_px": 2.0},
        [],
    ],
)
def test_a_stored_budget_beyond_reason_is_damage(stored: Any, lightning: Bundle) -> None:
    with pytest.raises(BundleError, match=r"parity\.json"):
        measure(with_parity(lightning, stored))


@pytest.mark.parametrize(
    "text", ["NaN", "[" * 100_000, "{", "9" * 5000, '{"plain": {"max_px": NaN}}']
)
def test_a_stored_parity_that_is_no_json_is_damage(text: str, lightning: Bundle) -> None:
    with pytest.raises(BundleError, match=r"parity\.json"):
        measure(changed(lightning, parity_json=text.encode()))


def test_a_large_stored_shift_does_not_hide_a_wrong_graph(lightning: Bundle) -> None:
    """Reduced precision may move one keypoint far, but not all of them."""
    moved = with_reference(lightning, plain_points=lightning.reference["plain_points"] + 25)
    with pytest.raises(BundleError, match=r"deviates .* px on average"):
        measure(with_parity(moved, {"max_px": 100.0, "mean_px": 0.1}))
