"""Evaluation on the held-out persons, and the best weights of a run by it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from posekit.bundle import Bundle, Weights
from posekit.types import Int64
from posekit_finetune.assess import indicators, predict
from posekit_finetune.assess.checks import Checker
from posekit_finetune.assess.ensemble import mean_distance, mean_maps, predict_members
from posekit_finetune.assess.indicators import Indicators
from posekit_finetune.assess.monitor import Monitor, MonitorReading
from posekit_finetune.assess.probe_views import PROBE_VIEWS
from posekit_finetune.data.persons import Persons
from posekit_finetune.train.loop import Loop
from posekit_finetune.train.teacher import PseudoLabels


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The held-out `rows` of `persons`, and what networks are compared with on them."""

    source: Bundle
    persons: Persons
    rows: Int64
    teacher: PseudoLabels
    threads: int

    def measure(
        self,
        weights: Weights,
        before: Indicators | None,
        progress: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> Indicators:
        """Indicators with these weights; `before`: the source's, None for the source itself.

        progress: called with the crops predicted so far and in total.
        """
        network = predict.of_bundle(self.source, weights=weights, threads=self.threads)
        crops = len(self.rows) * (1 + len(PROBE_VIEWS))
        network = predict.counted(network, crops, progress)
        return indicators.measure(
            network, self.persons, self.rows, teacher=self.teacher, source=before
        )

    def network_distance(self, loop: Loop, first: Indicators) -> float | None:
        """Distance of the second network's predictions from the first's; None with one network."""
        if loop.recipe.networks == 1:
            return None
        (second,) = predict_members([loop.export_network(1)], self.persons, self.rows)
        return mean_distance(first.points, second.points, self.persons.spec)

    def member_figures(self, loop: Loop, checks: Sequence[Checker]) -> dict[str, Any]:
        """With two networks: response and checks of each, and of the mean of their maps.

        The ensemble's figures are separate: it costs twice as much as a network.
        """
        if loop.recipe.networks == 1:
            return {}
        nets = [loop.export_network(index) for index in range(2)]
        single = [predict.of_network(net, self.persons.spec) for net in nets]
        members = predict_members(nets, self.persons, self.rows)
        figures = {
            member.name: {
                "response": member.response,
                **{check.name: check.share(network) for check in checks},
            }
            for member, network in zip(members, [*single, mean_maps(*single)], strict=True)
        }
        return {"members": figures}


def train(
    loop: Loop,
    monitor: Monitor,
    held_out: HeldOut,
    *,
    on_reading: Callable[[MonitorReading, float], None],
) -> Weights:
    """Run the loop to its end; the weights of the best reading, as a bundle stores them.

    The last reading's where none is better than the start, or where labels are learned: the gate
    judges them, and no checkpoint is selected with labels.
    """
    best = _restore(loop, monitor, held_out.source)
    for snapshot in loop:
        weights = bundle_weights(snapshot.net, held_out.source)
        measured = held_out.measure(weights, monitor.baseline)
        distance = held_out.network_distance(loop, measured)
        reading = monitor.watch(snapshot.step, measured, snapshot.report.losses, distance=distance)
        on_reading(reading, snapshot.seconds)
        if monitor.labeled or monitor.best is None or monitor.best is reading:
            best = weights
        loop.kept = {
            "looks": json.dumps([each.to_dict() for each in monitor.history]),
            "best": {name: torch.from_numpy(np.array(value)) for name, value in best.items()},
        }
    return best


def _restore(loop: Loop, monitor: Monitor, source: Bundle) -> Weights:
    """The best weights of a resumed run, its readings given to the monitor; else the source's."""
    if not loop.kept:
        return source.weights
    monitor.recall([MonitorReading.from_dict(each) for each in json.loads(loop.kept["looks"])])
    best: Weights = {name: value.numpy() for name, value in loop.kept["best"].items()}
    return best


def bundle_weights(net: nn.Module, source: Bundle) -> dict[str, np.ndarray[Any, Any]]:
    """A network's weights under the bundle's names, in the bundle's type."""
    state = net.state_dict()
    return {
        name: np.ascontiguousarray(state[name].detach().cpu().numpy(), value.dtype)
        for name, value in source.weights.items()
    }
