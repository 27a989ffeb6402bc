"""The optimizer, the learning rate and the averaged weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from posekit_finetune.recipe import Recipe


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


def update_ema(average: nn.Module, net: nn.Module, *, decay: float, count: int) -> None:
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


def learning_rate(step: int, recipe: Recipe) -> float:
    """The learning rate of step 0, 1, …"""
    risen = min(1.0, (step + 1) / max(recipe.warm_up, 1))
    done = step / recipe.steps
    if recipe.schedule == "steps":
        return recipe.rate * risen * (1.0 if done < 0.7 else 0.1 if done < 0.9 else 0.01)
    return recipe.rate * risen * float(0.5 + 0.5 * torch.cos(torch.tensor(torch.pi * done)))
