"""The held-out persons, and the best weights of a run as they see it."""

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
from posekit_finetune.assess.ensemble import apart, load_members, mean_maps
from posekit_finetune.assess.indicators import Indicators
from posekit_finetune.assess.label_check import Checker
from posekit_finetune.assess.monitor import Monitor, MonitorReading
from posekit_finetune.data.persons import Persons
from posekit_finetune.train.loop import Loop
from posekit_finetune.train.teacher import PseudoLabels


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The held-out persons, and what is asked of them."""

    source: Bundle
    persons: Persons
    held: Int64
    teacher: PseudoLabels
    threads: int

    def measure(self, weights: Weights, before: Indicators | None) -> Indicators:
        """The network with these weights; `before` is the source's, None for the source itself."""
        asked = predict.of_bundle(self.source, weights=weights, threads=self.threads)
        return indicators.measure(
            asked, self.persons, self.held, teacher=self.teacher, source=before
        )

    def apart(self, loop: Loop, seen: Indicators) -> float | None:
        """How far the second network's answers lie from the first's; None where there is one."""
        if loop.recipe.networks == 1:
            return None
        (second,) = load_members([loop.export_network(1)], self.persons, self.held)
        return apart(seen.points, second.points, self.persons.spec)

    def networks(self, loop: Loop, checks: Sequence[Checker]) -> dict[str, Any]:
        """Of two networks: the peaks, and what labels say, of each and of the mean of their maps.

        An ensemble's figure is no network's: it costs twice as much.
        """
        if loop.recipe.networks == 1:
            return {}
        nets = [loop.export_network(index) for index in range(2)]
        single = [predict.of_network(net, self.persons.spec) for net in nets]
        asked = [*single, mean_maps(*single)]
        told = {
            seen.name: {
                "response": seen.response,
                **{check.name: check.share(each) for check in checks},
            }
            for seen, each in zip(load_members(nets, self.persons, self.held), asked, strict=True)
        }
        return {"members": told}


def learn(
    loop: Loop,
    monitor: Monitor,
    watched: HeldOut,
    *,
    on_reading: Callable[[MonitorReading, float], None],
) -> Weights:
    """Run the loop to its end; the weights at the best look, as a bundle stores them.

    Where no look was better than the start, or labels teach, the last one's: the gate says what it
    thinks of them, and no checkpoint is chosen by labels.
    """
    best = _recalled(loop, monitor, watched.source)
    for reached in loop:
        weights = stored(reached.net, watched.source)
        seen = watched.measure(weights, monitor.baseline)
        gap = watched.apart(loop, seen)
        reading = monitor.watch(reached.step, seen, reached.report.losses, apart=gap)
        on_reading(reading, reached.seconds)
        if monitor.labeled or monitor.best is None or monitor.best is reading:
            best = weights
        loop.kept = {
            "looks": json.dumps([each.to_dict() for each in monitor.history]),
            "best": {name: torch.from_numpy(np.array(value)) for name, value in best.items()},
        }
    return best


def _recalled(loop: Loop, monitor: Monitor, source: Bundle) -> Weights:
    """The best weights of a run that goes on, its looks told to the monitor; else the source's."""
    if not loop.kept:
        return source.weights
    monitor.recall([MonitorReading.from_dict(each) for each in json.loads(loop.kept["looks"])])
    best: Weights = {name: value.numpy() for name, value in loop.kept["best"].items()}
    return best


def stored(net: nn.Module, source: Bundle) -> dict[str, np.ndarray[Any, Any]]:
    """A network's weights under the bundle's names, in the bundle's type."""
    state = net.state_dict()
    return {
        name: np.ascontiguousarray(state[name].detach().cpu().numpy(), value.dtype)
        for name, value in source.weights.items()
    }
