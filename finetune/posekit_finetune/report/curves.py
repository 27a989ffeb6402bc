"""The curves of a run: indicators of the held-out persons and losses, over the training steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from posekit.output import charts
from posekit_finetune.assess.indicators import Indicators
from posekit_finetune.assess.monitor import MonitorReading
from posekit_finetune.assess.probe_views import UNTRAINED

_STEPS = charts.Axis("Training step", low=0)


@dataclass(frozen=True)
class Chart:
    """Curves of one chart.  names: of the values, with what they are called in the legend."""

    title: str
    axis: charts.Axis
    names: Mapping[str, str]


CHARTS = (
    Chart(
        "Joints that stay in place in other views",
        charts.Axis("Body joints, %", percent=True),
        {
            "flip": "mirrored",
            "turn": "rotated by 30°",
            "zoom": "a fifth smaller",
            "move": "shifted",
            UNTRAINED: "untrained view",
        },
    ),
    Chart(
        "Agreement with teacher and source",
        charts.Axis("Body joints, %", percent=True),
        {
            "teacher": "teacher",
            "turned": "its rotated views",
            "source": "source, where it is confident",
        },
    ),
    Chart(
        "Height of the heatmaps' peaks",
        charts.Axis("Mean peak, 0 to 1", low=0),
        {"response": "mean peak"},
    ),
)

MORE_CHARTS = (
    Chart(
        "Mean distance between predictions",
        charts.Axis("Distance, % of the crop", low=0, percent=True),
        {
            "away": "between views",
            "teacher_away": "from the teacher",
            "source_away": "from the source",
            "apart": "between the networks",
        },
    ),
    Chart(
        "Heatmap values by fifths",
        charts.Axis("Number, relative to the start", low=0),
        {f"bin_{n}_ratio": f"{n / 5:.1f} to {(n + 1) / 5:.1f}" for n in range(5)},
    ),
    Chart(
        "Different peak cells of a keypoint",
        charts.Axis("Cells, % of the persons", low=0, percent=True),
        {"distinct": "different cells"},
    ),
    Chart(
        "Possible errors",
        charts.Axis("Share, %", low=0, percent=True),
        {
            "faint": "faint maps",
            "swaps": "left/right swaps",
            "crossed": "crossed pairs",
            "bones": "implausible bones",
        },
    ),
)


def draw(
    shown: Sequence[Chart], before: Indicators, history: Sequence[MonitorReading]
) -> list[str]:
    """The charts, each with the value at the start; those without values are left out."""
    steps = [0, *(reading.step for reading in history)]
    start = {**before.summary(), **{f"bin_{n}_ratio": 1.0 for n in range(5)}}
    values = [start, *(reading.values for reading in history)]
    drawn = [
        charts.line_chart(
            each.title,
            steps,
            {
                label: [row.get(name, math.nan) for row in values]
                for name, label in each.names.items()
            },
            x_axis=_STEPS,
            y_axis=each.axis,
        )
        for each in shown
    ]
    return [chart for chart in drawn if chart]


def losses(history: Sequence[MonitorReading]) -> str:
    """The losses, as of the steps that were evaluated."""
    names = sorted({name for reading in history for name in reading.losses})
    curves = {name: [row.losses.get(name, math.nan) for row in history] for name in names}
    steps = [reading.step for reading in history]
    axis = charts.Axis("Loss of the step", low=0)
    return charts.line_chart("Loss", steps, curves, x_axis=_STEPS, y_axis=axis)
