"""A run on drawn figures with a network that trains in seconds."""

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.stick_figures import SPEC, SmallNet, figures
from posekit_finetune import recipe
from posekit_finetune.recipe import Recipe
from posekit_finetune.train.loop import Loop
from posekit_finetune.train.networks import Start
from posekit_finetune.train.state import TrainingData

PERSONS = 48
ALIKE = (
    *("optimizer=adam", "rate=1e-3", "warm_up=1", "batch=16", "labelled_batch=16", "head_noise=0"),
    *("easy.turn_deg=[15,30]", "easy.scale=[0.15,0.15]", "easy.flip=0"),
    *("hard.turn_deg=[15,30]", "hard.scale=[0.15,0.15]", "hard.flip=0", "hard.cutout=0"),
)


def small_net(seed: int = 0, width: int = 4) -> SmallNet:
    torch.manual_seed(seed)
    return SmallNet(width)


def start(*seeds: int) -> Start:
    return Start(SPEC, tuple(small_net(seed) for seed in seeds or (0,)))


def lively_start(count: int) -> Start:
    """Networks with gradients well above rounding, which fresh heads of N(0, 0.001) do not have."""
    nets = [small_net(seed) for seed in range(count)]
    for seed, net in enumerate(nets):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in (net.up[0][0], net.up[1][0], net.final_layer):
                layer.weight.normal_(0, 0.2, generator=generator)
    return Start(SPEC, tuple(nets))


def material(*, labels: bool = False) -> TrainingData:
    made = figures(PERSONS, 1, "none")
    return TrainingData(made.persons, np.arange(PERSONS), labelled=made if labels else None)


def small(name: str, steps: int, *settings: str) -> Recipe:
    return recipe.load(name, [*ALIKE, f"steps={steps}", f"watch_every={steps}", *settings])


def weights(loop: Loop) -> list[torch.Tensor]:
    """Of all students and averages, after the loop has run to its end."""
    list(loop)
    nets = [*loop.networks.students, *loop.networks.averages]
    return [value for net in nets for value in net.state_dict().values()]


def pairs(
    first: list[torch.Tensor], second: list[torch.Tensor]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    assert len(first) == len(second) > 0
    yield from zip(first, second, strict=True)
