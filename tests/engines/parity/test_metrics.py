"""How many crops an export is compared on follows from how long they take."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from posekit.bundle import Bundle
from posekit.skeletons import COCO_17
from posekit.stats.parity import HIGH_CONFIDENCE, compare
from posekit.types import ModelSpec
from posekit_engines.graphs.points import points_graph
from posekit_engines.options import ExportOptions
from posekit_engines.parity import exported, judge, metrics, outputs
from posekit_engines.parity.budget import MAP_CROPS, TIME_BUDGET_S, Cost, crops_within_time
from posekit_engines.parity.crops import MAX_CROPS, MIN_CROPS, embedded_crops


@pytest.mark.parametrize(
    ("source_s", "export_s", "spent_s", "count"),
    [
        (0.01, 0.01, 1, MAX_CROPS),
        (1.0, 1.0, 10, MAX_CROPS),  # 16 + 16 + 4 runs of a second, and 10 until now: 46
        (3.0, 1.0, 12, 14),  # 14 * 4 + 4 + 12 = 72, the planned share of 90
        (1.0, 3.0, 12, 12),  # 12 * 4 + 12 + 12 = 72
    ],
)
def test_slow_networks_are_compared_on_fewer_crops(
    source_s: float, export_s: float, spent_s: float, count: int
) -> None:
    assert crops_within_time(Cost(source_s, export_s, spent_s)) == (count, MAP_CROPS)


@pytest.mark.parametrize(
    ("export_s", "spent_s", "map_crops"),
    [
        (4.0, 26, 3),  # 8 computed, 26 until now: 8 * 4 + 3 * 4 + 26 = 70
        (4.0, 34, 1),  # 8 * 4 + 4 + 34 = 70
        (60.0, 200, 1),  # never under 8 crops and the maps of one
    ],
)
def test_of_the_slowest_fewer_maps_are_read(
    export_s: float, spent_s: float, map_crops: int
) -> None:
    cost = Cost(export_s, export_s, spent_s, done=MIN_CROPS)
    assert crops_within_time(cost) == (MIN_CROPS, map_crops)


def test_the_plan_stays_within_the_time_budget() -> None:
    """Wherever 8 crops fit at all, the chosen number does, and one more would not."""
    for source_s, export_s in np.random.default_rng(0).uniform(0.01, 4, (200, 2)):
        cost = Cost(float(source_s), float(export_s), spent_s=5)
        count, _ = crops_within_time(cost)
        planned = 0.8 * TIME_BUDGET_S
        assert count == MIN_CROPS or cost.of(count) <= planned
        assert count == MAX_CROPS or cost.of(count + 1) > planned


def test_a_fixed_batch_costs_whole_batches() -> None:
    assert Cost(1, 1, batch=1).of(9) == 9 + 9 + 4
    assert Cost(1, 1, batch=8).of(9) == 9 + 16 + 8


def test_computed_crops_are_not_counted_twice_and_opening_again_is() -> None:
    assert Cost(2, 1, spent_s=16, done=8).of(8) == 16 + 8 + 4
    assert Cost(2, 1, spent_s=16, done=8, opening_s=5).of(10, 1) == 16 + 2 * 2 + 10 + 1 + 5


class Clock:
    """Seconds that pass only while a network or a file runs; in place of perf_counter."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(nn.Module):
    """Maps with one bright cell for each keypoint; image n takes `image_s[n]` of the clock."""

    def __init__(self, clock: Clock, image_s: list[float]) -> None:
        super().__init__()
        self._clock, self._image_s, self.images = clock, image_s, 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        for _ in image:
            self._clock.now += self._image_s[min(self.images, len(self._image_s) - 1)]
            self.images += 1
        maps = torch.zeros(len(image), 17, 16, 12)
        maps[:, :, 8, 6] = 1
        return maps


def measure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, image_s: list[float], file_s: float
) -> tuple[dict[str, Any], float, int]:
    """The report of a real file whose network and whose own runs take this long on a clock.

    Also the seconds that passed, and how many images the torch network computed.
    """
    clock = Clock()
    for module in (outputs, exported, judge):
        monkeypatch.setattr(module, "perf_counter", clock)

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def run(self, names: Any, feed: Any, *rest: Any) -> Any:
            clock.now += file_s * len(feed["crops"])
            return super().run(names, feed, *rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    spec = ModelSpec("simple-baseline-r18", (48, 64), (12, 16), COCO_17)
    path = tmp_path / "slow.onnx"
    path.write_bytes(points_graph(constant(spec), spec, flip=True).SerializeToString())
    net = Slow(clock, image_s)
    job = judge.ParityJob(Bundle("slow", spec, {}, {}), spec, net, ExportOptions(to="onnx"))
    checks, source, given = judge.compared_outputs(job, path)
    _, report = metrics.report(given, source, checks, spec=spec)
    return report, clock.now, net.images


def constant(spec: ModelSpec) -> onnx.ModelProto:
    """A network that gives `Slow`'s maps for every image."""
    width, height = spec.input_size
    value = helper.make_tensor_value_info
    maps = np.zeros((1, 17, 16, 12), np.float32)
    maps[:, :, 8, 6] = 1
    weights = [numpy_helper.from_array(maps, "maps")]
    weights += [numpy_helper.from_array(np.zeros(1, np.float32), "nothing")]
    weights += [numpy_helper.from_array(np.array([1, 2, 3]), "axes")]
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["one"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["one", "nothing"], ["blank"]),
        helper.make_node("Add", ["blank", "maps"], ["heatmaps"]),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "constant",
        [value("image", kind, ["N", 3, height, width])],
        [value("heatmaps", kind, ["N", 17, 16, 12])],
        weights[:2],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_fast_network_is_compared_on_all_crops(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report, spent, _ = measure(monkeypatch, tmp_path, [0.01], 0.01)
    assert report["crops"] == MAX_CROPS
    assert report["crop_px"]["max"] == 0  # the file is right on every crop, first and last
    assert spent < 2


def test_a_slow_network_stays_within_the_time_budget(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """HRNet-W48 at 384 x 288 on a shared core: 2.7 s a crop in torch, 4.2 s in the file."""
    report, spent, images = measure(monkeypatch, tmp_path, [1.35], 4.2)
    assert report["crops"] == MIN_CROPS
    assert images == 2 * MIN_CROPS  # upright and mirrored; none is computed twice
    # 8 crops of both, and the maps of the 3 crops that fit; the file's first output is kept.
    assert spent == pytest.approx(MIN_CROPS * (2.7 + 4.2) + 3 * 4.2)
    assert spent <= 0.8 * TIME_BUDGET_S
    assert report["time"]["source_ms"] == pytest.approx(2700)


def test_a_network_that_is_slow_after_a_fast_start_stays_within_the_time_budget(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the first crop's time 16 would fit: the time of 8 decides."""
    report, spent, images = measure(monkeypatch, tmp_path, [0.1, 0.1, 2.4], 1.0)
    assert report["crops"] < MAX_CROPS
    assert images == 2 * report["crops"]
    assert spent <= 0.8 * TIME_BUDGET_S


def test_the_slowest_network_is_still_compared_on_eight(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report, _, images = measure(monkeypatch, tmp_path, [30.0], 60.0)
    assert (report["crops"], images) == (MIN_CROPS, 2 * MIN_CROPS)
    assert report["maps"] == 0  # they were read for one crop at least


def test_one_parity_serves_reports_and_bundles() -> None:
    """The report's mean, p99 and max are those of `posekit.stats.parity`, of the same keypoints."""
    random = np.random.default_rng(0)
    spec = ModelSpec("x", (48, 64), (12, 16), COCO_17)
    checks = embedded_crops(spec).first(3)
    points = random.uniform(0, 48, (3, 17, 2)).astype(np.float32)
    scores = random.uniform(0, 1, (3, 17)).astype(np.float32)
    maps = np.zeros((3, 17, 16, 12), np.float32)
    source = outputs.SourceOutputs(maps, points, scores, 0.1)
    moved = points + random.normal(0, 1, points.shape).astype(np.float32)
    export = outputs.ExportOutputs(moved, scores, 0.1, maps, range(3), 0)
    parity, figures = metrics.report(export, source, checks, spec=spec)
    distances = np.hypot(*(moved - points).T)[scores.T > HIGH_CONFIDENCE]
    assert parity == compare(moved, scores, (points, scores), crops=3)
    assert figures["points"] == parity.points == len(distances) < scores.size
    wanted = {"mean": distances.mean(), "p99": np.percentile(distances, 99), "max": distances.max()}
    assert figures["crop_px"] == pytest.approx(wanted, abs=1e-5)
    assert figures["worst"][0]["px"] == pytest.approx(wanted["max"], abs=1e-5)


def test_without_a_high_confidence_keypoint_nothing_is_compared() -> None:
    points, scores = np.zeros((1, 17, 2), np.float32), np.full((1, 17), HIGH_CONFIDENCE, np.float32)
    parity = compare(points + 5, scores, (points, scores), crops=1)
    assert (parity.points, parity.mean_px, parity.max_px) == (0, 0.0, 0.0)
