"""The optimizer, the learning rate and the exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from posekit_finetune.recipe import Recipe


class RelativeAdam(torch.optim.Optimizer):
    """Adam whose step is relative to each output channel's initial root mean square.

    Where batch norm is folded, channels differ a thousandfold in size, and a step of plain Adam
    that suits the large ones destroys the small ones.
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
                axes = tuple(range(1, values.dim())) if values.dim() > 1 else (0,)
                rms = values.pow(2).mean(axes, keepdim=True).sqrt()
                self.state[parameter] = {
                    "step": torch.zeros(()),
                    "size": rms.clamp_min(1e-6),
                    "mean": torch.zeros_like(values),
                    "square": torch.zeros_like(values),
                }

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; `closure`, of torch's interface, is called first."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state, gradient = self.state[parameter], parameter.grad
                state["step"] += 1
                state["mean"].lerp_(gradient, 1 - beta1)
                state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                count = float(state["step"])
                mean = state["mean"] / (1 - beta1**count)
                root = (state["square"] / (1 - beta2**count)).sqrt_() + group["eps"]
                parameter.sub_(group["lr"] * state["size"] * mean / root)
        return loss


def update_ema(average: nn.Module, net: nn.Module, *, decay: float, count: int) -> None:
    """One update of the exponential moving average; the first updates weigh all steps equally.

    Buffers (batch norm's statistics) are averaged too, counters copied. Not torch's AveragedModel:
    its first update replaces the source's weights, and it renames the entries of the state dict,
    which stored states of interrupted runs would not fit.
    """
    decay = min(decay, count / (count + 1.0))
    with torch.no_grad():
        for ema, new in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
            if ema.is_floating_point():
                ema.lerp_(new.to(ema.dtype), 1 - decay)
            else:
                ema.copy_(new)


def learning_rate(step: int, recipe: Recipe) -> float:
    """The learning rate of step 0, 1, …

    A function of the step alone: torch's LambdaLR would add a state to store and to restore.
    """
    warm_up = min(1.0, (step + 1) / max(recipe.warm_up, 1))
    progress = step / recipe.steps
    if recipe.schedule == "steps":
        return recipe.rate * warm_up * (1.0 if progress < 0.7 else 0.1 if progress < 0.9 else 0.01)
    return recipe.rate * warm_up * float(0.5 + 0.5 * torch.cos(torch.tensor(torch.pi * progress)))
