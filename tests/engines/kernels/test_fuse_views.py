"""fuse_views.cu in emulation against tta.fuse: the shipped cases, and its launch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posekit.errors import InputError
from posekit.inference.tta import VIEWS, View
from posekit_engines.gpu_check.cases.case import Case
from posekit_engines.gpu_check.cases.fuse import brief, cases, conventions, hard_views, run
from posekit_engines.gpu_check.cases.run import examine
from posekit_engines.ops.fuse_views import FUSE_VIEWS, ViewTables, fuse_views
from posekit_engines.ops.launch import Maps
from tests.engines.cuda_emulation.emulated import emulated_device

emulated = pytest.mark.verifies("fuse_views.cu", "emulated")


@pytest.mark.tools
@emulated
@pytest.mark.parametrize("case", cases(), ids=str)
def test_fuse_views_equals_tta_fuse(case: Case) -> None:
    (finding,) = examine(emulated_device(), [case])
    assert finding.passed, finding


def test_the_brief_cases_are_among_all() -> None:
    assert {each.name for each in brief()} <= {each.name for each in cases()}


@pytest.mark.tools
@emulated
@pytest.mark.parametrize("seed", [1, 7, 12345])
def test_fuse_views_is_the_same_in_any_order_of_threads(seed: int) -> None:
    spec, maps = conventions((16, 20))["msra"], hard_views((16, 20), 16, 2).astype(np.float16)
    one = run(emulated_device(), maps, spec, views=VIEWS[16])
    np.testing.assert_array_equal(one, run(emulated_device(seed), maps, spec, views=VIEWS[16]))


@pytest.mark.tools
@emulated
def test_one_upright_view_is_its_maps_and_one_launch() -> None:
    """Multiplied by its weight and divided by it again: two roundings of 2^-24."""
    device, spec = emulated_device(), conventions((48, 64))["msra"]
    maps = hard_views((48, 64), 1, 3)[:3].astype(np.float32)
    np.testing.assert_allclose(run(device, maps, spec, views=VIEWS[1]), maps[:, 0], rtol=2**-22)
    (_, peaks), (name, fuse) = device.driver.launches  # type: ignore[attr-defined]
    assert name == "fuse_views_f32"
    assert (peaks.grid, fuse.grid) == ((5, 3, 1), (64 * 48 // 128, 5, 3))
    assert fuse.shared_bytes == 4


@pytest.mark.tools
@emulated
def test_a_cell_outside_all_views_is_0() -> None:
    """A landscape crop turned by 90 degrees: its left and right ends are outside the view."""
    spec = conventions((32, 8))["half-pixel"]
    maps = np.ones((1, 1, 5, 8, 32), np.float16)
    output = run(emulated_device(), maps, spec, views=[View(90)])
    assert (output[..., :12] == 0).all()
    assert (output[..., 20:] == 0).all()
    assert (output[..., 12:20] == 1).all()


@pytest.mark.tools
def test_no_persons_is_no_launch_and_other_maps_are_refused() -> None:
    device, spec = emulated_device(), conventions((6, 8))["msra"]
    tables = ViewTables.of(device, spec, VIEWS[4])
    maps = device.buffer((4, 5, 8, 6), np.float16)
    found, out = device.buffer((4, 5, 3), np.float32), device.buffer((1, 5, 8, 6), np.float32)
    good = Maps.of(maps, 4, flip=False)
    fuse_views(device, replace(good, shape=(0, 5, 8, 6)), tables, found=found, out=out)
    assert device.driver.launches == []  # type: ignore[attr-defined]
    for bad in (
        replace(good, shape=(3, 5, 8, 6)),
        replace(good, strides=(240, 48, 6)),
        replace(good, mirrored=good.address),
        replace(good, dtype=np.dtype(np.int8)),
    ):
        with pytest.raises(InputError, match="of 4 views per person"):
            fuse_views(device, bad, tables, found=found, out=out)
    with pytest.raises(InputError, match=r"found: wanted float32 \(4, 5, 3\)"):
        fuse_views(device, good, tables, found=out, out=out)
    with pytest.raises(InputError, match=r"out: wanted float32 \(1, 5, 8, 6\)"):
        fuse_views(device, good, tables, found=found, out=found)


@pytest.mark.tools
def test_the_struct_has_the_size_of_the_source() -> None:
    driver = emulated_device().driver
    assert driver.argument_bytes("fuse_views_f32") == FUSE_VIEWS.itemsize  # type: ignore[attr-defined]
