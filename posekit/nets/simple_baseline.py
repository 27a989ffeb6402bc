"""SimpleBaseline: a ResNet, three deconvolutions and a 1 x 1 convolution.

Names inside the backbone are torchvision's, with the stride on conv2 of a bottleneck ("pytorch
style"), so that published weights and ImageNet files fit without a change.

Source: He et al., CVPR 2016 (ResNet); Xiao, Wu and Wei, ECCV 2018 (the head).
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812  # the name that every torch program uses
from torch import Tensor, nn

from posekit.errors import CheckpointError


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; gives `width` channels."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H / stride, W / stride) of features (N, C', H, W)."""
        rest = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + rest, inplace=True)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 with the stride, 1 x 1, and a shortcut; gives 4 `width` channels."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = shortcut(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, H / stride, W / stride) of features (N, C', H, W)."""
        rest = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return F.relu(self.bn3(self.conv3(x)) + rest, inplace=True)


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """The projection of a residual block, or None where its input passes unchanged."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
    )


Block = type[BasicBlock] | type[Bottleneck]
_DEPTHS: dict[int, tuple[Block, tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def stack(block: Block, inputs: int, width: int, *, count: int, stride: int = 1) -> nn.Sequential:
    """`count` blocks in a row, the first one with the stride."""
    first = block(inputs, width, stride)
    rest = [block(width * block.expansion, width) for _ in range(count - 1)]
    return nn.Sequential(first, *rest)


class _ResNet(nn.Module):
    """torchvision's ResNet without pooling and classifier; features at stride 32."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        block, counts = _DEPTHS[depth]
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        wide = block.expansion
        self.layer1 = stack(block, 64, 64, count=counts[0])
        self.layer2 = stack(block, 64 * wide, 128, count=counts[1], stride=2)
        self.layer3 = stack(block, 128 * wide, 256, count=counts[2], stride=2)
        self.layer4 = stack(block, 256 * wide, 512, count=counts[3], stride=2)
        self.channels = 512 * wide

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, stride=2, padding=1)
        features: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return features


class DeconvHead(nn.Module):
    """`count` deconvolutions to 256 channels, each doubling the map, then a 1 x 1 convolution."""

    def __init__(self, inputs: int, joints: int, count: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n in range(count):
            deconv = nn.ConvTranspose2d(256 if n else inputs, 256, 4, 2, 1, bias=False)
            layers += [deconv, nn.BatchNorm2d(256), nn.ReLU()]
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(256, joints, 1)
        start_head(self)

    def forward(self, x: Tensor) -> Tensor:
        """Heatmaps (N, K, 2^count h, 2^count w) of features (N, C, h, w)."""
        maps: Tensor = self.final_layer(self.deconv_layers(x))
        return maps


def start_head(head: nn.Module) -> None:
    """Fresh weights of a head: N(0, 0.001), as SimpleBaseline does; none without storage."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not module.weight.is_meta:
            nn.init.normal_(module.weight, std=0.001)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def start_backbone(backbone: nn.Module) -> None:
    """Fresh weights of a convolutional backbone: He's normal initialization.

    Networks without storage, built for their shapes alone, are left: it is slow there.
    """
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class SimpleBaseline(nn.Module):
    """ResNet of `depth` 18, 34, 50, 101 or 152 with three deconvolutions.

    Takes any image whose sides are multiples of 32.  Raises CheckpointError for another depth.
    """

    def __init__(self, depth: int, joints: int = 17) -> None:
        super().__init__()
        if depth not in _DEPTHS:
            raise CheckpointError(f"no ResNet of depth {depth}; wanted one of {sorted(_DEPTHS)}")
        self.backbone = _ResNet(depth)
        self.head = DeconvHead(self.backbone.channels, joints)
        start_backbone(self.backbone)

    def forward(self, image: Tensor) -> Tensor:
        """Heatmaps (N, K, H / 4, W / 4) of `image` float32 (N, 3, H, W), normalized."""
        maps: Tensor = self.head(self.backbone(image))
        return maps
