"""INT8: which layers stay float, on which crops that is decided, and on which it is judged."""

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
from posekit.types import ModelSpec
from posekit_engines.export import export
from posekit_engines.graphs.contents import dtype_summary
from posekit_engines.graphs.edit import initializers
from posekit_engines.graphs.points import points_graph
from posekit_engines.options import ExportOptions
from posekit_engines.parity.crops import embedded_crops, load_check_crops
from posekit_engines.precision.calibration import least_error
from posekit_engines.precision.int8 import BUDGET_PX, LEAST, split, to_int8
from posekit_engines.precision.int8_error import int8_error, trial_outputs
from tests.engines.plain_graphs import blurred, exported, peaked, statistics
from tests.states import joints

LAYERS = 7
INT8 = ExportOptions(flip=False, precision="int8")


def feeds(count: int = 8, *, seed: int = 0) -> list[dict[str, np.ndarray]]:
    return [{"image": peaked(1, seed=seed + n)} for n in range(count)]


def names(report: dict[str, Any]) -> dict[str, str]:
    return {each["operator"]: each["reason"] for each in report["kept"]}


def with_points(spoiled: Sequence[int], *, flip: bool) -> onnx.ModelProto:
    """The layers inside posekit's own points graph; a crop's bytes are the bumps times 255."""
    spec = ModelSpec(
        "bumps",
        (18, 24),
        (18, 24),
        joints(3),
        mean=(0.0, 0.0, 0.0),
        std=(255.0, 255.0, 255.0),
        map_scale=(1.0, 1.0),
        map_offset=(0.0, 0.0),
        flip_shift=0.0,
    )
    return points_graph(blurred(LAYERS, spoiled=spoiled), spec, flip=flip)


def test_where_all_is_well_only_the_maps_layer_stays_float() -> None:
    made, report = to_int8(blurred(LAYERS), feeds())
    assert list(names(report)) == [f"layer{LAYERS - 1}.weight"]
    assert report["quantized"] == LAYERS - 1
    assert dtype_summary(made)["operators"] == {"int8": LAYERS - 1, "float": 1}
    assert report["mean_px"] <= BUDGET_PX
    assert report["points"] == 4 * 3  # three joints of the four crops that choose


@pytest.mark.parametrize("kind", ["raw", "points", "points with the flip test"])
def test_a_planted_bad_layer_is_put_back_and_no_other(kind: str) -> None:
    """Layer 3 writes a tensor that 255 steps cannot hold; layer 4 reads it. Both must go."""
    given: list[dict[str, np.ndarray]]
    if kind == "raw":
        model, given = blurred(LAYERS, spoiled=[3]), feeds()
    else:
        model = with_points([3], flip="flip" in kind)
        pictures = np.round(255 * peaked(8)).astype(np.uint8).transpose(0, 2, 3, 1)
        given = [{"crops": pictures}]
    made, report = to_int8(model, given)
    kept = names(report)
    bad = {"layer3.weight", "layer4.weight"}
    assert set(kept) == bad | {f"layer{LAYERS - 1}.weight"}
    assert {kept[name] for name in bad} == {"costs most where only it and its neighbours are int8"}
    assert dtype_summary(made)["operators"]["int8"] == LAYERS - 3
    assert report["mean_px"] <= BUDGET_PX
    damage = {each["operator"]: each["damage"] for each in report["kept"]}
    assert damage["layer3.weight"] > 0.3
    left = int8_error(trial_outputs(made, given), trial_outputs(model, given))
    assert left.mean_px is not None
    assert left.mean_px <= BUDGET_PX


def test_without_the_choice_the_planted_layer_would_be_over_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The plant is one: left in int8 it moves the points by far more than is allowed."""
    monkeypatch.setattr("posekit_engines.precision.int8.BUDGET_PX", 1e9)
    _, report = to_int8(blurred(LAYERS, spoiled=[3]), feeds())
    assert report["mean_px"] > 4 * BUDGET_PX
    assert list(names(report)) == [f"layer{LAYERS - 1}.weight"]


@pytest.mark.parametrize("spoiled", [[1, 4], [1, 3, 5]], ids=str)
def test_as_few_layers_are_put_back_as_it_takes(spoiled: list[int]) -> None:
    """4 and 5 bad ones of 6: what doubling 1, 2, 4, 6 overshoots is taken back."""
    _, report = to_int8(blurred(LAYERS, spoiled=spoiled), feeds())
    bad = {f"layer{n + more}.weight" for n in spoiled for more in (0, 1)}
    assert set(names(report)) == bad | {f"layer{LAYERS - 1}.weight"}


def test_where_no_layer_can_be_int8_that_is_an_error_and_no_file() -> None:
    """An int8 file without int8 in it would be a lie."""
    with pytest.raises(ParityError, match="still where any layers are int8") as told:
        to_int8(blurred(LAYERS, spoiled=range(LAYERS - 1)), feeds())
    assert told.value.exit_code == 4


def test_layers_can_be_excluded_by_name() -> None:
    made, report = to_int8(blurred(LAYERS), feeds(), exclude=["layer1", "layer2.w"])
    kept = names(report)
    assert kept["layer1.weight"] == kept["layer2.weight"] == "excluded by the caller"
    assert dtype_summary(made)["operators"]["float"] == 3
    with pytest.raises(InputError, match="'layer9': no weight begins so"):
        to_int8(blurred(LAYERS), feeds(), exclude=["layer9"])


def test_deconvolutions_are_multiplied_in_bytes_too() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ConvTranspose2d(6, 6, 4, 2, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 2, 1),
    )
    made, report = to_int8(exported(statistics(net)), feeds())
    assert report["deconvolutions_rewritten"] == 1
    assert dtype_summary(made)["operators"] == {"int8": 2, "float": 1}
    assert not any(node.op_type == "ConvTranspose" for node in made.graph.node)


def test_no_crop_both_calibrates_and_chooses() -> None:
    """Of crops and feeds of any number each is on one side, and every second chooses."""
    pictures = peaked(11)
    calibrating, choosing = split([{"image": pictures[:3]}, {"image": pictures[3:]}])
    sides = [{each["image"].tobytes() for each in side} for side in (calibrating, choosing)]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == {picture[None].tobytes() for picture in pictures}
    assert [len(side) for side in sides] == [6, 5]
    with pytest.raises(InputError, match=f"3 crops to calibrate with; wanted {LEAST} or more"):
        split(feeds(3))


def test_ranges_are_of_the_crops_that_calibrate_alone() -> None:
    """The crops that choose are five times as bright here: a range of theirs would show."""
    given = feeds()
    for feed in given[1::2]:
        feed["image"] = 5 * feed["image"]
    made, report = to_int8(blurred(LAYERS), given)
    top = max(float(feed["image"].max()) for n, feed in enumerate(given) if n % 2 == 0)
    assert float(initializers(made.graph)["image.scale"]) <= top / 255 * (1 + 1e-6)
    assert report["crops"] == {"calibrate": 4, "choose": 4}
    assert report["maps"] > 0.3  # and what choosing sees is how it clips theirs


def test_limits_that_lose_least() -> None:
    """A lone far value is not worth the steps; an even spread is."""
    even = np.linspace(0, 1, 2001, dtype=np.float32)
    assert least_error(even, (0.0, 1.0)) == (0.0, 1.0)
    normal = np.abs(np.random.default_rng(0).normal(size=40_000)).astype(np.float32)
    assert least_error(normal, (0.0, 60.0)) == pytest.approx((0.0, 24.0))  # the narrowest tried


def portraits(folder: Path, count: int) -> Path:
    """Real pictures: the check crops of the embedded MoveNet, mirrored, darker and shifted."""
    folder.mkdir()
    pictures = Bundle.open(bundle.find("movenet-thunder")).reference["crops"]
    for n in range(count):
        picture = np.roll(pictures[n % len(pictures)], 9 * n, 1)
        picture = np.clip(picture * (0.7 + 0.06 * n), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{n}.png"), picture[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def lightning() -> Bundle:
    return Bundle.open(bundle.find("movenet-lightning"))


def test_over_the_budget_on_crops_that_it_never_saw_it_is_refused(
    lightning: Bundle, tmp_path: Path
) -> None:
    """Calibrated on black pictures: these find nothing amiss, the check crops of persons do."""
    black = tmp_path / "black"
    black.mkdir()
    for n in range(LEAST):
        cv2.imwrite(str(black / f"{n}.png"), np.full((64, 64, 3), n, np.uint8))
    output = tmp_path / "x.onnx"
    options = dataclasses.replace(INT8, calibrate=black)
    with pytest.raises(ParityError, match=r"strays .* px on average; wanted at most 0\.5") as told:
        export(lightning, output, options)
    assert told.value.exit_code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["black"]


def test_the_crops_that_judge_an_export_never_calibrate_it(
    lightning: Bundle, tmp_path: Path
) -> None:
    """The same folder for both leaves nothing to calibrate with, which is said."""
    folder = portraits(tmp_path / "pictures", 6)
    options = dataclasses.replace(INT8, calibrate=folder, check=folder)
    with pytest.raises(InputError, match="0 crops beside those of --check, which judge"):
        export(lightning, tmp_path / "x.onnx", options)
    spec = lightning.pose_spec
    seen = load_check_crops(folder, spec)
    assert len(seen.without(embedded_crops(spec))) == len(seen)
    rest = seen.without(seen.first(2))
    assert rest.names == seen.names[2:]
    assert (rest.crops == seen.crops[2:]).all()
    assert (rest.warp.matrix == seen.warp.matrix[2:]).all()


@pytest.mark.slow
def test_an_int8_export_of_lightning_is_within_its_bar(lightning: Bundle, tmp_path: Path) -> None:
    """The mean shift on pictures that neither calibrated nor chose, against torch in float32."""
    folder = portraits(tmp_path / "pictures", 12)
    report = export(lightning, tmp_path / "x.onnx", dataclasses.replace(INT8, calibrate=folder))
    assert report["crop_px"]["mean"] <= 0.5
    assert report["points"] >= 50
    assert report["contained"]["weights"]["int8"] > 400_000
    assert report["decided"]["quantized"] > 20
    decided = sum(report["decided"]["crops"].values())
    assert report["calibrated_on"].startswith(f"{decided} crops")
