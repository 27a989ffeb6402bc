"""The networks of a training run: loading, wrapping, freezing, and which parameters learn."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from posekit.bundle import Bundle
from posekit.errors import AdaptError, InputError
from posekit.nets import build
from posekit.nets.movenet import MoveNet
from posekit.types import ModelSpec, UInt8
from posekit_finetune.data.persons import SAME_CROPS
from posekit_finetune.views.warps import normalize

SHARPNESS = 10.0
"""Factor of the spatial softmax's logits for maps that are not probabilities: a clean peak of 1
then has most of a map's mass, and background around 0 nearly none."""


@dataclass(frozen=True, eq=False)
class NetworkOutput:
    """A network's output for B crops.

    logits: for a spatial softmax, and maps: heatmaps, both (B, K, h, w).
    aim: (B, K, 2) x, y in cells, where a gated network expects the joints, or None.
    """

    logits: Tensor
    maps: Tensor
    aim: Tensor | None = None


def network_output(net: nn.Module, crops: UInt8, spec: ModelSpec) -> NetworkOutput:
    """Run a network of `posekit.nets`, wrapped or not, on uint8 (B, H, W, 3) RGB crops."""
    image = normalize(crops, spec, next(net.parameters()).device)
    if isinstance(unwrap(net), MoveNet):
        return NetworkOutput(*net(image, training=True))
    maps = net(image)
    return NetworkOutput(maps * SHARPNESS, maps)


def early_layers(net: nn.Module, blocks: int = 3) -> list[nn.Module]:
    """The layers before stride 4 or 8: general features, and the most expensive ones to train.

    blocks: of MoveNet's backbone; 10 reach to stride 16.
    """
    if isinstance(net, MoveNet):
        return [net.backbone.stem, *net.backbone.blocks[:blocks]]
    names = ("conv1", "bn1", "conv2", "bn2", "layer1", "patch_embed")
    children = dict((getattr(net, "backbone", net)).named_children())
    return [children[name] for name in names if name in children]


def head_layers(net: nn.Module) -> list[nn.Module]:
    """The last layers, which output the maps."""
    for name in ("head", "final_layer"):
        head = getattr(net, name, None)
        if isinstance(head, nn.Module):
            return [head]
    return [list(net.children())[-1]]


def trainable_parameters(net: nn.Module, learn: str) -> list[nn.Parameter]:
    """The parameters that learn, see `Recipe.learn`; the others are frozen."""
    net.requires_grad_(learn != "head")
    if learn == "head":
        for layer in head_layers(net):
            layer.requires_grad_(True)
    if learn in ("deep", "late"):
        for layer in early_layers(net, 3 if learn == "deep" else 10):
            layer.requires_grad_(False)
    return [parameter for parameter in net.parameters() if parameter.requires_grad]


def perturb_head(net: nn.Module, share: float, seed: int) -> None:
    """Add noise to the head, `share` of each tensor's rms, so that two copies learn differently."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in head_layers(net):
            for parameter in layer.parameters():
                noise = torch.randn(parameter.shape, generator=generator).to(parameter.device)
                parameter.add_(share * parameter.pow(2).mean().sqrt() * noise)


def frozen_copy(net: nn.Module) -> nn.Module:
    """A copy in evaluation mode that does not learn."""
    return copy.deepcopy(net).eval().requires_grad_(False)


def unwrap(net: nn.Module) -> nn.Module:
    """A network without Fabric's and DDP's wrappers."""
    while isinstance(inner := getattr(net, "module", None), nn.Module):
        net = inner
    return net


@dataclass(frozen=True, eq=False)
class Start:
    """Initial networks of a run: one, or two different ones.

    spec: of both.  nets: heatmap networks (N, 3, H, W) -> (N, K, h, w); they are copied.
    """

    spec: ModelSpec
    nets: tuple[nn.Module, ...]


_SHARED = (*SAME_CROPS, "color", "mean", "std")
"""Fields in which two networks of a run must agree to learn from each other on the same crops."""


def start_networks(*bundles: Bundle) -> Start:
    """Networks of one or two bundles.

    Raises AdaptError, and InputError where the second's crops or maps differ from the first's.
    """
    specs = [bundle.pose_spec for bundle in bundles]
    for bundle, other in zip(bundles[1:], specs[1:], strict=True):
        differ = [name for name in _SHARED if getattr(other, name) != getattr(specs[0], name)]
        if differ:
            raise InputError(
                f"--second {bundle.name}: takes {other.input_size} px and outputs "
                f"{other.heatmap_size} cells of {other.skeleton.name}; wanted a network with the "
                f"inputs and outputs of {bundles[0].name} ({specs[0].input_size}, "
                f"{specs[0].heatmap_size}, {specs[0].skeleton.name}); {', '.join(differ)} differ"
            )
    return Start(specs[0], tuple(load_network(bundle) for bundle in bundles))


def load_network(bundle: Bundle) -> nn.Module:
    """A bundle's network in torch, float32, evaluation mode.

    Raises AdaptError where the weights do not fit.
    """
    net = build(bundle.pose_spec)
    state = {k: torch.from_numpy(v.astype(np.float32)) for k, v in bundle.weights.items()}
    missing, surplus = net.load_state_dict(state, strict=False)
    if surplus or any(not name.endswith("num_batches_tracked") for name in missing):
        raise AdaptError(
            f"{bundle.name}: its weights do not fit its architecture: {[*missing, *surplus][:3]} "
            "are missing or unknown"
        )
    return net.eval()


def set_train_mode(net: nn.Module, batch_norm: str) -> None:
    """Training mode; batch norm's statistics are fixed where the recipe says "frozen"."""
    net.train()
    if batch_norm == "frozen":
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
