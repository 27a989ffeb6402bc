"""INT8: which layers stay float, on which crops that is decided, on which parity is measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from posekit import bundle
from posekit.bundle import Bundle
from posekit.errors import InputError, ParityError
from posekit_engines.export import export
from posekit_engines.graphs.contents import dtype_summary
from posekit_engines.graphs.edit import initializers
from posekit_engines.graphs.points import points_graph
from posekit_engines.options import ExportOptions
from posekit_engines.parity.crops import embedded_crops, load_check_crops
from posekit_engines.precision.calibration import least_error_range
from posekit_engines.precision.int8 import BUDGET_PX, MIN_CROPS, split_crops, to_int8
from posekit_engines.precision.int8_error import int8_error, trial_outputs
from tests.engines.plain_graphs import blurred, bumps_spec, exported, peaked, statistics

LAYERS = 7
INT8 = ExportOptions(flip=False, precision="int8")
SPEC = bumps_spec()


def feeds(count: int = 8, *, seed: int = 0) -> list[dict[str, np.ndarray]]:
    return [{"image": peaked(1, seed=seed + n)} for n in range(count)]


def reasons(report: dict[str, Any]) -> dict[str, str]:
    """Of the layers kept in float32, by name."""
    return {each["operator"]: each["reason"] for each in report["kept"]}


def with_points(coarse: Sequence[int], *, flip: bool) -> onnx.ModelProto:
    """The layers inside posekit's own points graph."""
    return points_graph(blurred(LAYERS, coarse=coarse), bumps_spec(cell_px=1), flip=flip)


def test_of_good_layers_only_the_maps_layer_stays_float() -> None:
    made, report = to_int8(blurred(LAYERS), feeds(), spec=SPEC)
    assert list(reasons(report)) == [f"layer{LAYERS - 1}.weight"]
    assert report["quantized"] == LAYERS - 1
    assert dtype_summary(made)["operators"] == {"int8": LAYERS - 1, "float": 1}
    assert report["mean_px"] <= BUDGET_PX
    assert report["points"] == 4 * 3  # three keypoints of the four crops that choose layers


@pytest.mark.parametrize("kind", ["raw", "points", "points with the flip test"])
def test_a_planted_bad_layer_is_put_back_and_no_other(kind: str) -> None:
    """Layer 3 writes a tensor that 255 steps cannot hold; layer 4 reads it. Both must go."""
    given: list[dict[str, np.ndarray]]
    if kind == "raw":
        model, given, spec = blurred(LAYERS, coarse=[3]), feeds(), SPEC
    else:
        model, spec = with_points([3], flip="flip" in kind), bumps_spec(cell_px=1)
        crops = np.round(255 * peaked(8)).astype(np.uint8).transpose(0, 2, 3, 1)
        given = [{"crops": crops}]
    made, report = to_int8(model, given, spec=spec)
    kept = reasons(report)
    bad = {"layer3.weight", "layer4.weight"}
    assert set(kept) == bad | {f"layer{LAYERS - 1}.weight"}
    assert {kept[name] for name in bad} == {"costs most where only it and its neighbors are int8"}
    assert dtype_summary(made)["operators"]["int8"] == LAYERS - 3
    assert report["mean_px"] <= BUDGET_PX
    damage = {each["operator"]: each["damage"] for each in report["kept"]}
    assert damage["layer3.weight"] > 0.3
    left = int8_error(*(trial_outputs(each, given, spec) for each in (made, model)))
    assert left.mean_px is not None
    assert left.mean_px <= BUDGET_PX


def test_in_int8_the_planted_layer_is_over_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not put back, it moves the points by far more than the budget."""
    monkeypatch.setattr("posekit_engines.precision.int8.BUDGET_PX", 1e9)
    _, report = to_int8(blurred(LAYERS, coarse=[3]), feeds(), spec=SPEC)
    assert report["mean_px"] > 4 * BUDGET_PX
    assert list(reasons(report)) == [f"layer{LAYERS - 1}.weight"]


@pytest.mark.parametrize("coarse", [[1, 4], [1, 3, 5]], ids=str)
def test_as_few_layers_are_put_back_as_needed(coarse: list[int]) -> None:
    """4 and 5 bad ones of 6: bisection corrects what doubling 1, 2, 4, 6 overshoots."""
    _, report = to_int8(blurred(LAYERS, coarse=coarse), feeds(), spec=SPEC)
    bad = {f"layer{n + more}.weight" for n in coarse for more in (0, 1)}
    assert set(reasons(report)) == bad | {f"layer{LAYERS - 1}.weight"}


def test_where_no_layer_can_be_int8_that_is_an_error_and_no_file() -> None:
    with pytest.raises(ParityError, match="with any layer in int8; nothing is written") as raised:
        to_int8(blurred(LAYERS, coarse=range(LAYERS - 1)), feeds(), spec=SPEC)
    assert raised.value.exit_code == 4


def test_layers_can_be_excluded_by_name() -> None:
    made, report = to_int8(blurred(LAYERS), feeds(), spec=SPEC, exclude=["layer1", "layer2.w"])
    kept = reasons(report)
    assert kept["layer1.weight"] == kept["layer2.weight"] == "excluded by the caller"
    assert dtype_summary(made)["operators"]["float"] == 3
    with pytest.raises(InputError, match="'layer9': no weight's name begins so"):
        to_int8(blurred(LAYERS), feeds(), spec=SPEC, exclude=["layer9"])


def test_deconvolutions_compute_in_int8_too() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ConvTranspose2d(6, 6, 4, 2, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 2, 1),
    )
    made, report = to_int8(
        exported(statistics(net)), feeds(), spec=bumps_spec(joints=2, cells=(36, 48))
    )
    assert report["deconvolutions_rewritten"] == 1
    assert dtype_summary(made)["operators"] == {"int8": 2, "float": 1}
    assert not any(node.op_type == "ConvTranspose" for node in made.graph.node)


def test_no_crop_both_calibrates_and_chooses_layers() -> None:
    """For any number of crops and feeds each is on one side, and every second chooses."""
    images = peaked(11)
    calibrating, choosing = split_crops([{"image": images[:3]}, {"image": images[3:]}])
    sides = [{each["image"].tobytes() for each in side} for side in (calibrating, choosing)]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == {image[None].tobytes() for image in images}
    assert [len(side) for side in sides] == [6, 5]
    with pytest.raises(InputError, match=f"3 crops to calibrate with; wanted {MIN_CROPS} or more"):
        split_crops(feeds(3))


def test_ranges_are_those_of_the_calibration_crops_only() -> None:
    """The crops that choose layers are five times as bright here, which would show in a range."""
    given = feeds()
    for feed in given[1::2]:
        feed["image"] = 5 * feed["image"]
    made, report = to_int8(blurred(LAYERS), given, spec=SPEC)
    top = max(float(feed["image"].max()) for n, feed in enumerate(given) if n % 2 == 0)
    assert float(initializers(made.graph)["image.scale"]) <= top / 255 * (1 + 1e-6)
    assert report["crops"] == {"calibrate": 4, "choose": 4}
    assert report["maps"] > 0.3  # their values are clipped


def test_the_range_of_least_error() -> None:
    """Narrowed where outliers are rare, not for an even distribution."""
    even = np.linspace(0, 1, 2001, dtype=np.float32)
    assert least_error_range(even, (0.0, 1.0)) == (0.0, 1.0)
    normal = np.abs(np.random.default_rng(0).normal(size=40_000)).astype(np.float32)
    assert least_error_range(normal, (0.0, 60.0)) == pytest.approx(
        (0.0, 24.0)
    )  # the narrowest that is tried


def portraits(folder: Path, count: int) -> Path:
    """Real images: the check crops of the embedded MoveNet, darker and shifted."""
    folder.mkdir()
    crops = Bundle.open(bundle.find("movenet-thunder")).reference["crops"]
    for n in range(count):
        image = np.roll(crops[n % len(crops)], 9 * n, 1)
        image = np.clip(image * (0.7 + 0.06 * n), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{n}.png"), image[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def lightning() -> Bundle:
    return Bundle.open(bundle.find("movenet-lightning"))


def test_over_the_budget_on_held_out_crops_it_is_rejected(
    lightning: Bundle, tmp_path: Path
) -> None:
    """Calibrated on black images it is good on these, and not on the check crops of people."""
    black = tmp_path / "black"
    black.mkdir()
    for n in range(MIN_CROPS):
        cv2.imwrite(str(black / f"{n}.png"), np.full((64, 64, 3), n, np.uint8))
    output = tmp_path / "x.onnx"
    options = dataclasses.replace(INT8, calibrate=black)
    with pytest.raises(
        ParityError, match=r"deviates .* px on average; wanted at most 0\.5"
    ) as raised:
        export(lightning, output, options)
    assert raised.value.exit_code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["black"]


def test_check_crops_never_calibrate(lightning: Bundle, tmp_path: Path) -> None:
    """The same folder for both leaves nothing to calibrate with, which is an error."""
    folder = portraits(tmp_path / "images", 6)
    options = dataclasses.replace(INT8, calibrate=folder, check=folder)
    with pytest.raises(InputError, match="0 crops that --check does not use"):
        export(lightning, tmp_path / "x.onnx", options)
    spec = lightning.pose_spec
    checks = load_check_crops(folder, spec)
    assert len(checks.without(embedded_crops(spec))) == len(checks)
    rest = checks.without(checks.first(2))
    assert rest.names == checks.names[2:]
    assert (rest.crops == checks.crops[2:]).all()
    assert (rest.warp.matrix == checks.warp.matrix[2:]).all()


@pytest.mark.slow
def test_an_int8_export_of_lightning_is_within_its_bar(lightning: Bundle, tmp_path: Path) -> None:
    """The mean deviation on crops that neither calibrated nor chose layers, against torch."""
    folder = portraits(tmp_path / "images", 12)
    report = export(lightning, tmp_path / "x.onnx", dataclasses.replace(INT8, calibrate=folder))
    assert report["crop_px"]["mean"] <= 0.5
    assert report["points"] >= 50
    assert report["contained"]["weights"]["int8"] > 400_000
    assert report["decided"]["quantized"] > 20
    decided = sum(report["decided"]["crops"].values())
    assert report["calibrated_on"].startswith(f"{decided} crops")
