"""The one path of an image stays short: few files, few functions, few statements."""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType, FrameType

import posekit
from posekit import estimate, video
from tests.architecture.tree import ROOT, Module, functions
from tests.support.assets import shipped


def test_one_image_runs_little_code() -> None:
    """At most 10 posekit files and 30 functions, the detector included."""
    with video.read(shipped("examples/sports2d_demo.mp4")) as reader:
        image = next(iter(reader)).image
    estimator = posekit.load("movenet-thunder", threads=1)
    visited: set[CodeType] = set()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and Path(frame.f_code.co_filename).is_relative_to(ROOT / "posekit"):
            visited.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        poses = estimator(image)
    finally:
        sys.setprofile(before)
    assert len(poses) >= 1
    # Comprehensions are functions in Python 3.11 only, so they do not count.
    called = sorted(
        f"{Path(code.co_filename).relative_to(ROOT).as_posix()}:{code.co_qualname}"
        for code in visited
        if not code.co_name.startswith("<")
    )
    files = {name.partition(":")[0] for name in called}
    assert len(files) <= 10, called
    assert len(called) <= 30, "\n".join(called)
    assert any(name.endswith("Runtime.infer") for name in called)


def test_the_path_reads_as_a_dozen_lines() -> None:
    """`Estimator.__call__` is the steps in their order and branches on no backend."""
    module = Module(Path(estimate.__file__))
    calls = [each for each in functions(module) if each.node.name == "__call__"]
    (call,) = (each for each in calls if not each.node.decorator_list)  # the others: @overload
    assert call.statements <= 14
