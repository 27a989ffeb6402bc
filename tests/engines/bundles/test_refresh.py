"""A bundle with new weights: its reference and graphs with old weights inside are replaced."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import posekit
from posekit import Bundle
from posekit.bundle import find
from posekit.diagnostics.verify import verify
from posekit.inference.runtime import Runtime
from posekit.nets import build
from posekit.stats.parity import deviations_px
from posekit_engines.bundles.refresh import refresh_bundle
from posekit_engines.export import export
from posekit_engines.graphs.weights import load_weights
from posekit_engines.options import ExportOptions
from posekit_engines.parity.source import source_points


def changed(bundle: Bundle) -> Bundle:
    """Every floating-point weight a little larger or smaller: points move by pixels."""
    random = np.random.default_rng(0)
    weights = {
        name: (value * random.normal(1, 0.01, value.shape)).astype(np.float16)
        for name, value in bundle.weights.items()
    }
    return dataclasses.replace(bundle, weights=weights)


def source_of(bundle: Bundle) -> tuple[Any, Any]:
    net = load_weights(build(bundle.pose_spec), bundle.weights)
    return source_points(net, bundle.reference["crops"], bundle.pose_spec, flip=False)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lightning in fp16: one graph, with its weights inside."""
    path = tmp_path_factory.mktemp("half") / "half.posekit"
    source = Bundle.open(find("movenet-lightning"))
    export(source, path, ExportOptions(flip=False, precision="fp16"))
    return path


def test_graphs_with_external_weights_stay_and_the_reference_is_of_the_new_weights() -> None:
    bundle = Bundle.open(find("movenet-lightning"))
    new = changed(bundle)
    done = refresh_bundle(new)
    assert done.graphs == bundle.graphs
    wanted, scores = source_of(new)
    np.testing.assert_array_equal(done.reference["plain_points"], wanted)
    moved = deviations_px(bundle.reference["plain_points"], (wanted, scores))
    assert moved.mean() > 0.2  # the weights differ
    assert max(verify(done).values()) <= 0.5


def test_a_graph_with_old_weights_inside_is_replaced(half: Path) -> None:
    """Unchanged, the graph would compute with the weights from before the adaptation."""
    bundle = Bundle.open(half)
    new = changed(bundle)
    done = refresh_bundle(new)
    assert set(done.graphs) == {"flip", "maps", "plain"}
    wanted, scores = source_of(new)
    for each, limit in ((done, 0.05), (new, 10.0)):
        runtime = Runtime(each, device="cpu", threads=1, flip=False)
        points, _ = runtime.infer(bundle.reference["crops"])
        mean = deviations_px(points, (wanted, scores)).mean()
        assert mean <= limit
        assert (mean > 0.2) == (each is new)  # the old graph has the old weights
    exported = done.provenance["export"]
    assert exported["precision"] == "fp32"
    assert "its parent was fp16" in exported["note"]
    assert done.provenance["parents"] == bundle.provenance["parents"]
    assert max(verify(done).values()) <= 0.5


@pytest.mark.slow
def test_an_fp16_bundle_can_be_adapted(half: Path, tmp_path: Path) -> None:
    """The whole of `posekit adapt`; its bundle runs with the flip test and without."""
    images = tmp_path / "images"
    images.mkdir()
    random = np.random.default_rng(0)
    for n in range(60):
        coarse = random.integers(0, 255, (6, 5, 3), np.uint8)
        image = cv2.resize(coarse, (160, 192), interpolation=cv2.INTER_CUBIC)
        cv2.circle(image, (80, 60), 18, random.integers(0, 255, 3).tolist(), -1)
        cv2.imwrite(str(images / f"{n:02}.png"), image)
    settings = ["watch_every=2", "batch=4", "steps=1", "rate=1e-4", "warm_up=1"]
    out = tmp_path / "mine.posekit"
    posekit.adapt(
        half,
        images,
        out,
        boxes="full",
        threads=1,
        settings=[*settings, "ensemble_views=2"],
        force=True,
    )
    bundle = Bundle.open(out)
    assert set(bundle.graphs) == {"flip", "maps", "plain"}
    assert bundle.provenance["parents"][-1] == Bundle.open(half).sha256
    again = tmp_path / "again.posekit"
    export(bundle, again, ExportOptions())
    chain = [Bundle.open(find("movenet-lightning")).sha256, Bundle.open(half).sha256]
    assert Bundle.open(again).provenance["parents"] == [*chain, bundle.sha256]
    assert max(verify(bundle).values()) <= 0.5
    for flip in (True, False):
        Runtime(bundle, device="cpu", threads=1, flip=flip).infer(bundle.reference["crops"])
