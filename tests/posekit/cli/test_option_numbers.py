"""Numbers of options are finite and in range: NaN compares false with every limit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posekit.diagnostics.bench import BenchOptions
from posekit.drawing.style import DrawStyle
from posekit.errors import InputError
from posekit.estimate import EstimateOptions
from posekit.output.outputs import OutputOptions
from posekit.tracking.smooth import SmoothOptions
from posekit.tracking.track import TrackOptions
from posekit.video import ReadOptions
from posekit_engines.options import ExportOptions

NAN, INF = float("nan"), float("inf")
WRONG: list[Callable[[], Any]] = [
    lambda: EstimateOptions(min_score=NAN),
    lambda: DrawStyle(min_score=NAN),
    lambda: DrawStyle(min_score=20),
    lambda: EstimateOptions(detect_every=0),
    lambda: EstimateOptions(frames_per_batch=0),
    lambda: EstimateOptions(max_persons=0),
    lambda: OutputOptions(Path("x"), segment_s=NAN),
    lambda: OutputOptions(Path("x"), segment_s=INF),
    lambda: OutputOptions(Path("x"), segment_s=0.0),
    lambda: ReadOptions(start_s=NAN),
    lambda: ReadOptions(end_s=NAN),
    lambda: BenchOptions(cell_s=NAN),
    lambda: BenchOptions(cell_s=INF),
    lambda: SmoothOptions(trusted=NAN),
    lambda: TrackOptions(confident_strength=NAN),
    lambda: ExportOptions(budget_px=NAN).check_for("onnx"),
    lambda: ExportOptions(budget_px=-1.0).check_for("onnx"),
    lambda: ExportOptions(budget_px=INF).check_for("onnx"),
]


@pytest.mark.parametrize("options", WRONG, ids=range(len(WRONG)))
def test_a_number_that_is_none_or_out_of_range_is_refused(options: Callable[[], Any]) -> None:
    with pytest.raises(InputError):
        options()
