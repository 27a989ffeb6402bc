"""HRNet (pose_hrnet): four resolutions side by side, joined again and again; no deconvolution.

Names inside the backbone are the official repository's, as are mmpose's, so that published pose
weights and ImageNet files fit without a change.

Source: Sun, Xiao, Liu and Wang, CVPR 2019.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812  # the name that every torch program uses
from torch import Tensor, nn

from posekit.nets.simple_baseline import BasicBlock, Bottleneck, stack, start_backbone, start_head

_MODULES = (1, 4, 3)  # of stages 2, 3 and 4
_BLOCKS = 4  # in each branch of a module


def _conv(inputs: int, outputs: int, *, stride: int = 1, size: int = 3) -> list[nn.Module]:
    """Convolution and batch norm."""
    conv = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class _Transition(nn.ModuleList):
    """Branches of `before` channels turned into those of `after`; the new one at half the size."""

    def __init__(self, before: list[int], after: list[int]) -> None:
        super().__init__()
        for index, outputs in enumerate(after):
            if index == len(before):
                halve = nn.Sequential(*_conv(before[-1], outputs, stride=2), nn.ReLU())
                self.append(nn.Sequential(halve))
            elif before[index] == outputs:
                self.append(nn.Identity())
            else:
                self.append(nn.Sequential(*_conv(before[index], outputs), nn.ReLU()))

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        grown = [*levels, levels[-1]]
        return [layer(x) for layer, x in zip(self, grown, strict=True)]


def _fuse(widths: list[int], source: int, target: int) -> nn.Module:
    """From the resolution of one branch to that of another: up by copying, down by strides."""
    if source == target:
        return nn.Identity()
    inputs, outputs = widths[source], widths[target]
    if source > target:
        double = nn.Upsample(scale_factor=float(2 ** (source - target)), mode="nearest")
        return nn.Sequential(*_conv(inputs, outputs, size=1), double)
    steps = [
        nn.Sequential(*_conv(inputs, inputs, stride=2), nn.ReLU())
        for _ in range(target - source - 1)
    ]
    return nn.Sequential(*steps, nn.Sequential(*_conv(inputs, outputs, stride=2)))


class _Sum(nn.ModuleList):
    """Every branch brought to the resolution of branch `target`, and summed."""

    def __init__(self, widths: list[int], target: int) -> None:
        super().__init__(_fuse(widths, source, target) for source in range(len(widths)))

    def forward(self, levels: list[Tensor]) -> Tensor:
        parts = [layer(x) for layer, x in zip(self, levels, strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return F.relu(total)


class _Exchange(nn.Module):
    """Branches that work alone and are then summed into each of the first `outputs` ones."""

    def __init__(self, widths: list[int], outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            stack(BasicBlock, width, width, count=_BLOCKS) for width in widths
        )
        self.fuse_layers = nn.ModuleList(_Sum(widths, target) for target in range(outputs))

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        levels = [branch(x) for branch, x in zip(self.branches, levels, strict=True)]
        return [fuse(levels) for fuse in self.fuse_layers]


class _Backbone(nn.Module):
    """Stem, layer1 and three stages; gives the finest branch at stride 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(3, 64, stride=2)
        self.conv2, self.bn2 = _conv(64, 64, stride=2)
        self.layer1 = stack(Bottleneck, 64, 64, count=4)
        before = [256]
        for number, count in enumerate(_MODULES, start=2):
            widths = [width * 2**n for n in range(number)]
            self.add_module(f"transition{number - 1}", _Transition(before, widths))
            # Only the finest branch of the last module is used.
            outputs = [number] * (count - 1) + [1 if number == 4 else number]
            stage = nn.Sequential(*(_Exchange(widths, n) for n in outputs))
            self.add_module(f"stage{number}", stage)
            before = widths

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        levels: list[Tensor] = [self.layer1(x)]
        for number in (2, 3, 4):
            levels = self.get_submodule(f"transition{number - 1}")(levels)
            levels = self.get_submodule(f"stage{number}")(levels)
        return levels[0]


class _Head(nn.Module):
    """A 1 x 1 convolution."""

    def __init__(self, width: int, joints: int) -> None:
        super().__init__()
        self.final_layer = nn.Conv2d(width, joints, 1)
        start_head(self)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.final_layer(x)
        return maps


class HRNet(nn.Module):
    """HRNet-W`width`: 18, 32 and 48 are known; any width works.

    Takes any image whose sides are multiples of 32.
    """

    def __init__(self, width: int, joints: int = 17) -> None:
        super().__init__()
        self.backbone = _Backbone(width)
        self.head = _Head(width, joints)
        start_backbone(self.backbone)

    def forward(self, image: Tensor) -> Tensor:
        """Heatmaps (N, K, H / 4, W / 4) of `image` float32 (N, 3, H, W), normalized."""
        maps: Tensor = self.head(self.backbone(image))
        return maps
