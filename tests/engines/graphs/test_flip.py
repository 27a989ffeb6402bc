"""The flip test inside the graph equals numpy's, for each convention, on real peaks.

Compared are the network's maps of a crop and of the mirrored one, merged and decoded by the numpy
codecs, with the points graph around the same network.
"""

import dataclasses
from typing import Any

import numpy as np
import pytest

from posekit import bundle, codecs
from posekit.bundle import Bundle
from posekit.inference.session import open_session
from posekit.nets import build
from posekit.stats.parity import deviations_px
from posekit.types import ModelSpec
from posekit_engines.graphs.network import network_graph
from posekit_engines.graphs.points import points_graph
from posekit_engines.graphs.weights import load_weights

CONVENTIONS: dict[str, dict[str, Any]] = {
    "msra": {"map_scale": (4.0, 4.0), "map_offset": (0.0, 0.0), "flip_shift": 1.0},
    "msra-exact": {"map_scale": (4.0, 4.0), "map_offset": (0.0, 0.0), "flip_shift": 0.75},
    "udp": {"map_scale": (191 / 47, 191 / 47), "map_offset": (0.0, 0.0), "flip_shift": 0.0},
    "half-pixel": {"map_scale": (4.0, 4.0), "map_offset": (1.5, 1.5), "flip_shift": 0.0},
}


@pytest.fixture(scope="module")
def lightning() -> Bundle:
    return Bundle.open(bundle.find("movenet-lightning"))


@pytest.fixture(scope="module")
def network(lightning: Bundle) -> Any:
    spec = lightning.pose_spec
    return network_graph(load_weights(build(spec), lightning.weights), spec, lightning.weights)


@pytest.fixture(scope="module")
def maps(lightning: Bundle) -> tuple[Any, Any]:
    """The network's maps of the check crops, and of the mirrored ones."""
    crops = lightning.reference["crops"]
    session = open_session(lightning.graphs["maps"], lightning.weights, device="cpu", threads=1)
    views = (crops, np.ascontiguousarray(crops[:, :, ::-1]))
    upright, mirrored = (session.run(None, {"crops": view})[0] for view in views)
    return upright, mirrored


@pytest.mark.parametrize("decode", ["quarter", "dark", "udp"])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_graph_s_flip_test_equals_numpy_s(
    convention: str, decode: Any, lightning: Bundle, network: Any, maps: tuple[Any, Any]
) -> None:
    spec: ModelSpec = dataclasses.replace(
        lightning.pose_spec, decode=decode, **CONVENTIONS[convention]
    )
    graph = points_graph(network, spec, flip=True).SerializeToString()
    session = open_session(graph, lightning.weights, device="cpu", threads=1)
    points, scores = session.run(None, {"crops": lightning.reference["crops"]})
    merged = codecs.merge_flip(*maps, mirror=spec.skeleton.mirror, shift=spec.flip_shift)
    wanted, heights = codecs.decode(merged, spec)
    deviations = deviations_px(points, (wanted, heights))
    assert len(deviations) > 25
    assert deviations.max() <= 1e-3
    np.testing.assert_allclose(scores, heights, atol=1e-5)
    # A merge with another shift gives other points, beyond the bound above. The steps of a quarter
    # cell are too coarse to show it.
    if decode == "quarter":
        return
    other = codecs.merge_flip(*maps, mirror=spec.skeleton.mirror, shift=spec.flip_shift + 0.25)
    moved = deviations_px(codecs.decode(other, spec)[0], (wanted, heights))
    assert moved.max() > 0.01
