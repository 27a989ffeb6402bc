"""How many crops an export is judged on follows from what they cost."""

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
from posekit.types import ModelSpec
from posekit_engines.graphs.points import points_graph
from posekit_engines.options import ExportOptions
from posekit_engines.parity import answers, exported, judge, metrics
from posekit_engines.parity.budget import ROOM_S, TAPPED, Cost, crops_within_time
from posekit_engines.parity.crops import LEAST, MOST


@pytest.mark.parametrize(
    ("source_s", "export_s", "spent_s", "count"),
    [
        (0.01, 0.01, 1, MOST),
        (1.0, 1.0, 10, MOST),  # 16 + 16 + 4 runs of a second, and 10 until now: 46
        (3.0, 1.0, 12, 14),  # 14 * 4 + 4 + 12 = 72, the planned share of 90
        (1.0, 3.0, 12, 12),  # 12 * 4 + 12 + 12 = 72
    ],
)
def test_slow_networks_are_judged_on_fewer_crops(
    source_s: float, export_s: float, spent_s: float, count: int
) -> None:
    assert crops_within_time(Cost(source_s, export_s, spent_s)) == (count, TAPPED)


@pytest.mark.parametrize(
    ("export_s", "spent_s", "taps"),
    [
        (4.0, 26, 3),  # 8 answered, 26 until now: 8 * 4 + 3 * 4 + 26 = 70
        (4.0, 34, 1),  # 8 * 4 + 4 + 34 = 70
        (60.0, 200, 1),  # never under 8 crops and one map, whatever it takes
    ],
)
def test_the_slowest_are_asked_for_fewer_maps(export_s: float, spent_s: float, taps: int) -> None:
    cost = Cost(export_s, export_s, spent_s, done=LEAST)
    assert crops_within_time(cost) == (LEAST, taps)


def test_what_is_planned_stays_within_the_room() -> None:
    """Wherever 8 crops fit at all, the number that is taken does, and one more would not."""
    for source_s, export_s in np.random.default_rng(0).uniform(0.01, 4, (200, 2)):
        cost = Cost(float(source_s), float(export_s), spent_s=5)
        taken, _ = crops_within_time(cost)
        planned = 0.8 * ROOM_S
        assert taken == LEAST or cost.of(taken) <= planned
        assert taken == MOST or cost.of(taken + 1) > planned


def test_a_fixed_batch_costs_whole_batches() -> None:
    assert Cost(1, 1, batch=1).of(9) == 9 + 9 + 4
    assert Cost(1, 1, batch=8).of(9) == 9 + 16 + 8


def test_what_is_done_is_not_counted_twice_and_opening_again_is() -> None:
    assert Cost(2, 1, spent_s=16, done=8).of(8) == 16 + 8 + 4
    assert Cost(2, 1, spent_s=16, done=8, opening_s=5).of(10, 1) == 16 + 2 * 2 + 10 + 1 + 5


class Clock:
    """Seconds that pass only where a network or a file answers; instead of perf_counter."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(nn.Module):
    """Maps of one bright cell a keypoint; each picture takes `picture_s` of the clock."""

    def __init__(self, clock: Clock, picture_s: list[float]) -> None:
        super().__init__()
        self._clock, self._picture_s, self.pictures = clock, picture_s, 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        for _ in image:
            self._clock.now += self._picture_s[min(self.pictures, len(self._picture_s) - 1)]
            self.pictures += 1
        maps = torch.zeros(len(image), 17, 16, 12)
        maps[:, :, 8, 6] = 1
        return maps


def judged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, picture_s: list[float], file_s: float
) -> tuple[dict[str, Any], float, int]:
    """The report of a real file whose network and whose own runs take this long on a clock.

    Also the seconds that went by, and how many pictures the torch network saw.
    """
    clock = Clock()
    for module in (answers, exported, judge):
        monkeypatch.setattr(module, "perf_counter", clock)

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def run(self, names: Any, feed: Any, *rest: Any) -> Any:
            clock.now += file_s * len(feed["crops"])
            return super().run(names, feed, *rest)

    monkeypatch.setattr(exported.onnxruntime, "InferenceSession", Session)
    spec = ModelSpec("simple-baseline-r18", (48, 64), (12, 16), COCO_17)
    path = tmp_path / "slow.onnx"
    path.write_bytes(points_graph(constant(spec), spec, flip=True).SerializeToString())
    net = Slow(clock, picture_s)
    job = judge.ParityJob(Bundle("slow", spec, {}, {}), spec, net, ExportOptions(to="onnx"))
    checks, source, given = judge._answers(job, path, None)
    _, report = metrics.report(given, source, checks, spec=spec)
    return report, clock.now, net.pictures


def constant(spec: ModelSpec) -> onnx.ModelProto:
    """A network that gives `Slow`'s maps whatever it sees."""
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


def test_a_quick_network_is_judged_on_all_crops(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report, spent, _ = judged(monkeypatch, tmp_path, [0.01], 0.01)
    assert report["crops"] == MOST
    assert report["crop_px"]["max"] == 0  # the file is right on every crop, first and last
    assert spent < 2


def test_a_slow_network_keeps_within_the_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """HRNet-W48 at 384 x 288 on a disturbed core: 2.7 s a crop in torch, 4.2 s in the file."""
    report, spent, pictures = judged(monkeypatch, tmp_path, [1.35], 4.2)
    assert report["crops"] == LEAST
    assert pictures == 2 * LEAST  # upright and mirrored; none is asked twice
    # 8 crops of both, and the maps of the 3 crops that fit; the file's first answer is kept.
    assert spent == pytest.approx(LEAST * (2.7 + 4.2) + 3 * 4.2)
    assert spent <= 0.8 * ROOM_S
    assert report["time"]["source_ms"] == pytest.approx(2700)


def test_a_network_that_is_slow_after_a_quick_start_keeps_within_the_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One crop's time would have promised 16: what 8 of them really took decides."""
    report, spent, pictures = judged(monkeypatch, tmp_path, [0.1, 0.1, 2.4], 1.0)
    assert report["crops"] < MOST
    assert pictures == 2 * report["crops"]
    assert spent <= 0.8 * ROOM_S


def test_the_slowest_network_is_still_judged_on_eight(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report, _, pictures = judged(monkeypatch, tmp_path, [30.0], 60.0)
    assert (report["crops"], pictures) == (LEAST, 2 * LEAST)
    assert report["maps"] == 0  # of one crop at least they were read
