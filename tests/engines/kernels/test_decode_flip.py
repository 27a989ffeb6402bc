"""decode_flip.cu in emulation against codecs: the shipped cases, in any order of threads."""

from __future__ import annotations

import numpy as np
import pytest

from posekit_engines.gpu_check.cases.case import Case
from posekit_engines.gpu_check.cases.decode import DECODES, brief, cases, hard_pair, run, spec_of
from posekit_engines.gpu_check.cases.run import examine
from tests.engines.cuda_emulation.emulated import emulated_device

emulated = pytest.mark.verifies("decode_flip.cu", "emulated")


@pytest.mark.tools
@emulated
@pytest.mark.parametrize("case", cases(), ids=str)
def test_decode_flip_equals_the_codecs(case: Case) -> None:
    (finding,) = examine(emulated_device(), [case])
    assert finding.passed, finding


def test_the_brief_cases_are_among_all() -> None:
    assert {each.name for each in brief()} <= {each.name for each in cases()}


@pytest.mark.tools
@emulated
@pytest.mark.parametrize("seed", [1, 7, 12345])
def test_decode_flip_is_the_same_in_any_order_of_threads(seed: int) -> None:
    for decode in DECODES[1:]:
        spec = spec_of((16, 20), decode)
        maps, mirrored = hard_pair((16, 20), (1, 2), np.float16)
        one = run(emulated_device(), maps, spec, mirrored=mirrored)
        other = run(emulated_device(seed), maps, spec, mirrored=mirrored)
        np.testing.assert_array_equal(one, other)


@pytest.mark.tools
@emulated
def test_decode_flip_is_one_launch_that_returns_twelve_bytes_a_keypoint() -> None:
    device = emulated_device()
    spec = spec_of((48, 64), "dark")
    maps = np.zeros((9, 5, 64, 48), np.float16)
    output = run(device, maps, spec, mirrored=maps)
    (launched,) = device.driver.launches  # type: ignore[attr-defined]
    assert launched[0] == "decode_flip_f16"
    assert launched[1].grid == (5, 9, 1)
    assert output.nbytes == 12 * 9 * 5
