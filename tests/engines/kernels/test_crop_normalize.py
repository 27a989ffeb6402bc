"""crop_normalize.cu in emulation against bilinear numpy (the shipped cases) and OpenCV."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from posekit.geometry import Warp
from posekit_engines.gpu_check.cases import crop
from posekit_engines.gpu_check.cases.case import Case
from posekit_engines.gpu_check.cases.crop import SPEC, noise_image, run
from posekit_engines.gpu_check.cases.run import examine
from posekit_engines.ops import reference
from posekit_engines.ops.crop_normalize import BT601
from tests.engines.cuda_emulation.emulated import emulated_device
from tests.support.assets import shipped

emulated = pytest.mark.verifies("crop_normalize.cu", "emulated")


@pytest.mark.tools
@emulated
@pytest.mark.parametrize("case", crop.cases(), ids=str)
def test_crop_normalize_equals_bilinear_numpy(case: Case) -> None:
    (finding,) = examine(emulated_device(), [case])
    assert finding.passed, finding


def test_the_brief_cases_are_among_all() -> None:
    assert {each.name for each in crop.brief()} <= {each.name for each in crop.cases()}


@pytest.mark.tools
@emulated
@pytest.mark.parametrize("scale", [0.37, 1.7, 3.1])
def test_crop_normalize_is_within_a_gray_level_of_opencv(scale: float) -> None:
    """`Runtime.crop` with cv2 5; older versions round positions to 1/32 px."""
    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("OpenCV before 5 rounds positions to 1/32 px")
    spec = replace(SPEC, input_size=(64, 96))
    photo = cv2.imread(str(shipped("tests/data/coco_000000397133.jpg")))[:, :, ::-1]
    for image in (np.ascontiguousarray(photo), noise_image(200, 300)):
        matrix = np.array([[[scale, 0, -scale * 23.3], [0, scale * 1.01, -scale * 17.7]]])
        output = run(emulated_device(), [image], spec, to_frame=Warp(matrix).inverse(), flip=False)
        wanted = cv2.warpAffine(image, matrix[0], spec.input_size, flags=cv2.INTER_LINEAR)
        assert np.abs(output[0] - wanted).max() < 1


def test_the_references_nv12_is_opencvs() -> None:
    """OpenCV has BT.601 only, and clips Y below 16; its fixed-point sums differ by a level."""
    planes = np.random.default_rng(4).integers(16, 236, (60 + 30, 44), np.uint8)
    rgb = reference.rgb_of_nv12(planes[:60], planes[60:], BT601)
    wanted = cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_NV12)
    assert np.abs(rgb.astype(int) - wanted).max() <= 1
