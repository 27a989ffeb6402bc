"""The networks that learn, what they learned from, and how their weights move."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from posekit.nets.movenet import MoveNet
from posekit_finetune.recipe import Recipe

SHARPNESS = 10.0
"""Of the spatial softmax of maps that are no probabilities: a clean peak of 1 then holds most of
the mass of a map, and background around 0 next to none."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a network says of B crops.

    logits: for a spatial softmax, and maps: heatmaps, both (B, K, h, w).
    aim: (B, K, 2) x, y in cells, where a gated network expects the joints, or None.
    """

    logits: Tensor
    maps: Tensor
    aim: Tensor | None = None


def answer(net: nn.Module, image: Tensor) -> Answer:
    """Ask a network of `posekit.nets`, wrapped or not."""
    if isinstance(bare(net), MoveNet):
        return Answer(*net(image, training=True))
    maps = net(image)
    return Answer(maps * SHARPNESS, maps)


class RelativeAdam(torch.optim.Optimizer):
    """Adam whose step is a share of each output channel's initial rms.

    Where batch norm is folded, channels differ a thousandfold in size, and one step of plain Adam
    that is right for the large ones wipes out the small ones.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 2e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps})
        for group in self.param_groups:
            for parameter in group["params"]:
                values = parameter.detach()
                around = tuple(range(1, values.dim())) if values.dim() > 1 else (0,)
                rms = values.pow(2).mean(around, keepdim=True).sqrt()
                self.state[parameter] = {
                    "step": torch.zeros(()),
                    "size": rms.clamp_min(1e-6),
                    "mean": torch.zeros_like(values),
                    "square": torch.zeros_like(values),
                }

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; `closure` is what torch's interface has, and is called first."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state, gradient = self.state[parameter], parameter.grad
                state["step"] += 1
                state["mean"].lerp_(gradient, 1 - first)
                state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
                count = float(state["step"])
                mean = state["mean"] / (1 - first**count)
                root = (state["square"] / (1 - second**count)).sqrt_() + group["eps"]
                parameter.sub_(group["lr"] * state["size"] * mean / root)
        return loss


def early_layers(net: nn.Module, blocks: int = 3) -> list[nn.Module]:
    """What lies before stride 4 or 8: general features, and the most expensive to learn.

    blocks: of MoveNet's backbone; 10 reach to stride 16.
    """
    if isinstance(net, MoveNet):
        return [net.backbone.stem, *net.backbone.blocks[:blocks]]
    names = ("conv1", "bn1", "conv2", "bn2", "layer1", "patch_embed")
    children = dict((getattr(net, "backbone", net)).named_children())
    return [children[name] for name in names if name in children]


def head_layers(net: nn.Module) -> list[nn.Module]:
    """The last layers, which give the maps."""
    for name in ("head", "final_layer"):
        found = getattr(net, name, None)
        if isinstance(found, nn.Module):
            return [found]
    return [list(net.children())[-1]]


def choose(net: nn.Module, learn: str) -> list[nn.Parameter]:
    """The parameters that learn; the others are told to stand still."""
    net.requires_grad_(learn != "head")
    if learn == "head":
        for layer in head_layers(net):
            layer.requires_grad_(True)
    if learn in ("deep", "late"):
        for layer in early_layers(net, 3 if learn == "deep" else 10):
            layer.requires_grad_(False)
    return [parameter for parameter in net.parameters() if parameter.requires_grad]


def shaken(net: nn.Module, share: float, seed: int) -> None:
    """Noise on the head, `share` of each tensor's rms: else twins stay twins."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in head_layers(net):
            for parameter in layer.parameters():
                noise = torch.randn(parameter.shape, generator=generator).to(parameter.device)
                parameter.add_(share * parameter.pow(2).mean().sqrt() * noise)


def average(average: nn.Module, net: nn.Module, *, decay: float, count: int) -> None:
    """One step of the exponential average; the first steps count evenly.

    Buffers (batch norm's statistics) are averaged too, counters copied.
    """
    decay = min(decay, count / (count + 1.0))
    with torch.no_grad():
        for kept, new in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new.to(kept.dtype), 1 - decay)
            else:
                kept.copy_(new)


def rate_at(step: int, recipe: Recipe) -> float:
    """The learning rate of step 0, 1, …"""
    risen = min(1.0, (step + 1) / max(recipe.warm_up, 1))
    done = step / recipe.steps
    if recipe.schedule == "steps":
        return recipe.rate * risen * (1.0 if done < 0.7 else 0.1 if done < 0.9 else 0.01)
    return recipe.rate * risen * float(0.5 + 0.5 * torch.cos(torch.tensor(torch.pi * done)))


def frozen_copy(net: nn.Module) -> nn.Module:
    """A copy in evaluation mode that never learns."""
    return copy.deepcopy(net).eval().requires_grad_(False)


def bare(net: nn.Module) -> nn.Module:
    """A network without Fabric's and DDP's wrappers."""
    while isinstance(inner := getattr(net, "module", None), nn.Module):
        net = inner
    return net
