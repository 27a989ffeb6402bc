"""Short training runs on synthetic persons, with a network that trains in seconds."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from posekit_finetune import recipe
from posekit_finetune.data.labeled import LabeledPersons
from posekit_finetune.recipe import Recipe
from posekit_finetune.train.loop import Loop
from posekit_finetune.train.networks import Start
from posekit_finetune.train.state import TrainingData
from posekit_finetune.views import warps
from tests.synthetic.people import SPEC, SmallNet, people

PERSONS = 48
BATCH = 6
SETTINGS = (
    *("optimizer=adam", "rate=1e-3", "warm_up=1", "batch=16", "labelled_batch=16", "head_noise=0"),
    *("easy.turn_deg=[15,30]", "easy.scale=[0.15,0.15]", "easy.flip=0"),
    *("hard.turn_deg=[15,30]", "hard.scale=[0.15,0.15]", "hard.flip=0", "hard.cutout=0"),
)


def small_net(seed: int = 0, width: int = 4) -> SmallNet:
    torch.manual_seed(seed)
    return SmallNet(width)


def start(*seeds: int) -> Start:
    return Start(SPEC, tuple(small_net(seed) for seed in seeds or (0,)))


def spread_net(seed: int) -> SmallNet:
    """A network with gradients well above rounding, unlike fresh heads of N(0, 0.001)."""
    net, generator = small_net(seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in (net.up[0][0], net.up[1][0], net.final_layer):
            layer.weight.normal_(0, 0.2, generator=generator)
    return net


def spread_start(count: int) -> Start:
    return Start(SPEC, tuple(spread_net(seed) for seed in range(count)))


def unit_net(seed: int) -> SmallNet:
    """A network in evaluation mode whose maps have mean 1 and standard deviation 1."""
    net = spread_net(seed).eval()
    with torch.no_grad():
        net.final_layer.weight.div_(net(batch_input()).std())
        net.final_layer.bias.fill_(1.0)
    return net


def batch_persons() -> LabeledPersons:
    """BATCH labeled persons."""
    return people(BATCH, 1, "none")


def batch_input() -> Tensor:
    """Their crops as a network's input."""
    return warps.normalize(batch_persons().persons.crops(slice(None)), SPEC)


def training_data(*, labels: bool = False) -> TrainingData:
    labeled = people(PERSONS, 1, "none")
    return TrainingData(labeled.persons, np.arange(PERSONS), labeled=labeled if labels else None)


def short_recipe(name: str, steps: int, *settings: str) -> Recipe:
    return recipe.load(name, [*SETTINGS, f"steps={steps}", f"watch_every={steps}", *settings])


def final_weights(loop: Loop) -> list[Tensor]:
    """Of all students and averages, after the loop has run to its end."""
    list(loop)
    nets = [*loop.networks.students, *loop.networks.averages]
    return [value for net in nets for value in net.state_dict().values()]


def pairs(first: list[Tensor], second: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    assert len(first) == len(second) > 0
    yield from zip(first, second, strict=True)
