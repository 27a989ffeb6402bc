"""MoveNet SinglePose, Thunder and Lightning, as heatmap networks that can be trained.

MobileNetV2, a feature pyramid down to stride 4 and four heads. The original reads its output
from all four (center, regressed joints, heatmap, offset); here they are folded into one stack of
gated heatmaps, so that flip test, adaptation and export treat MoveNet like any other network.
Batch norm is folded into the convolutions, as the published weights have it.

Source: Google's MoveNet (TF Hub google/movenet/singlepose/{thunder,lightning}/4, Apache-2.0).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the name that every torch program uses
from numpy.typing import NDArray
from torch import Tensor, nn

from posekit.errors import CheckpointError, InputError

# Channels of MobileNetV2's seven stages after the stem's; width 1.75 and 1.
_WIDTHS = {
    "movenet-thunder": (56, 32, 40, 56, 112, 168, 280, 560),
    "movenet-lightning": (32, 16, 24, 32, 64, 96, 160, 320),
}
_REPEATS = (1, 2, 3, 4, 3, 3, 1)
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
_TAPS = (2, 5, 9)  # the last blocks at strides 4, 8 and 16
_PYRAMID = (64, 64, 32, 24, 24)  # channels at strides 32, 16, 8, 4, and of the result
_LAST, _HEAD = 1280, 96
# Cells at which a gate of 1 halves a peak. The original weighs by 1.8 / (d + 1.8), whose cusp bends
# the peak beside it: with logarithmic refinement it costs 1 to 2 points of OKS on COCO.
_REACH = 8.0


class _SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: at stride 2 only below and on the right."""

    def __init__(
        self, inputs: int, outputs: int, size: int = 1, *, stride: int = 1, depthwise: bool = False
    ) -> None:
        groups = inputs if depthwise else 1
        around = size // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, size, stride=stride, padding=around, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.stride[0] == 1 else F.pad(x, (0, 1, 0, 1)))


class _Bottleneck(nn.Module):
    """MobileNetV2's inverted residual; the first one of the network does not expand."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, expand: int) -> None:
        super().__init__()
        wide = inputs * expand
        self.expand = _SameConv(inputs, wide) if expand > 1 else None
        self.depthwise = _SameConv(wide, wide, 3, stride=stride, depthwise=True)
        self.project = _SameConv(wide, outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        narrow: Tensor = self.project(F.relu6(self.depthwise(wide), inplace=True))
        return x + narrow if self.residual else narrow


class _Separable(nn.Module):
    """Depthwise 3 x 3, pointwise, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.pointwise(self.depthwise(x)), inplace=True)


class _Head(_Separable):
    """A separable convolution and a pointwise one that gives the maps."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, _HEAD)
        self.out = nn.Conv2d(_HEAD, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.out(super().forward(x))
        return maps


class _Backbone(nn.Module):
    """MobileNetV2; gives the features at strides 32, 16, 8 and 4."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = _SameConv(3, widths[0], 3, stride=2)
        self.blocks = nn.ModuleList()
        inputs = widths[0]
        for outputs, repeats, stride in zip(widths[1:], _REPEATS, _STRIDES, strict=True):
            for n in range(repeats):
                expand = 6 if len(self.blocks) else 1
                block = _Bottleneck(inputs, outputs, stride=1 if n else stride, expand=expand)
                self.blocks.append(block)
                inputs = outputs
        self.last = _SameConv(inputs, _LAST)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(x), inplace=True)
        levels: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in _TAPS:
                levels.insert(0, x)
        return [F.relu6(self.last(x), inplace=True), *levels]


class _Pyramid(nn.Module):
    """Top-down feature pyramid: stride 32 to stride 4, doubled bilinearly and summed."""

    def __init__(self, inputs: tuple[int, ...]) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Conv2d(wide, narrow, 1) for wide, narrow in zip(inputs, _PYRAMID[:-1], strict=True)
        )
        self.smooth = nn.ModuleList(
            _Separable(narrow, after) for narrow, after in itertools.pairwise(_PYRAMID[1:])
        )

    def forward(self, levels: list[Tensor]) -> Tensor:
        x: Tensor = self.lateral[0](levels[0])
        for level, lateral, smooth in zip(levels[1:], self.lateral[1:], self.smooth, strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = smooth(x + lateral(level))
        return x


class MoveNet(nn.Module):
    """MoveNet for one architecture of `_WIDTHS`; `size` = crop side in px, a multiple of 32.

    gate: strength of the weight that draws each joint to where the person in the crop's center
    has it; 0 gives the plain sigmoid maps.  Only heads that the output needs are there: heatmap,
    and regress with a gate; `complete` adds center and offset, as published.  Raises InputError.
    """

    cols: Tensor
    rows: Tensor

    def __init__(
        self,
        architecture: str,
        size: int,
        *,
        joints: int = 17,
        gate: float = 0.0,
        complete: bool = False,
    ) -> None:
        super().__init__()
        if architecture not in _WIDTHS or size % 32:
            raise InputError(
                f"movenet: {architecture!r} at {size} px; wanted one of {sorted(_WIDTHS)} and a "
                "multiple of 32"
            )
        widths = _WIDTHS[architecture]
        self.gate = gate
        self.backbone = _Backbone(widths)
        self.pyramid = _Pyramid((_LAST, widths[4], widths[3], widths[2]))
        channels = {"heatmap": joints}
        channels |= {"regress": 2 * joints} if gate or complete else {}
        channels |= {"center": 1, "offset": 2 * joints} if complete else {}
        self.head = nn.ModuleDict({name: _Head(_PYRAMID[-1], n) for name, n in channels.items()})
        cells = torch.arange(size // 4, dtype=torch.float32)
        self.register_buffer("cols", cells[None, :], persistent=False)
        self.register_buffer("rows", cells[:, None], persistent=False)

    def heads(self, image: Tensor) -> dict[str, Tensor]:
        """Each head's maps, (N, ., size / 4, size / 4), for `image` as in `forward`.

        heatmap (N, K) and center (N, 1): logits.  regress, offset (N, 2K): y, x pairs in cells,
        from the cell to the joint of the person centered there, and to the joint's exact place.
        """
        features = self.pyramid(self.backbone(image))
        return {name: head(features) for name, head in self.head.items()}

    def forward(
        self, image: Tensor, training: bool = False
    ) -> Tensor | tuple[Tensor, Tensor, Tensor | None]:
        """Gated heatmaps in [0, 1], float32 (N, K, size / 4, size / 4).

        image: float32 (N, 3, size, size), RGB / 127.5 - 1.
        training: give instead what a softmax over the cells is taken of (the heatmap's logits less
        the logarithm of the gate, which peak where the gated maps do), the gated maps, and where
        the gate expects each joint of the centered person, (N, K, 2) x, y in cells, or None.
        """
        features = self.pyramid(self.backbone(image))
        plain: Tensor = self.head["heatmap"](features)
        heatmap = torch.sigmoid(plain)
        if not self.gate:
            return (plain, heatmap, None) if training else heatmap
        expected = self._expected(features)
        penalty = self._penalty(expected)
        if not training:
            return heatmap / penalty
        aim = torch.stack([expected[:, 1::2, 0, 0], expected[:, 0::2, 0, 0]], 2)
        return plain - penalty.log(), heatmap / penalty, aim

    def _expected(self, features: Tensor) -> Tensor:
        """Where the person in the crop's center has each joint, (N, 2K, 1, 1): y, x in cells.

        regress is read at the crop's center cell only, so only its 3 x 3 surroundings are run.
        """
        middle = self.rows.shape[0] // 2
        around = features[:, :, middle - 1 : middle + 2, middle - 1 : middle + 2]
        expected: Tensor = self.head["regress"](around)[:, :, 1, 1, None, None] + middle
        return expected

    def _penalty(self, expected: Tensor) -> Tensor:
        """1 + gate (d / 8)² for each cell, d = cells to where the centered person has the joint."""
        # Summed last: only that, and the division, runs over every cell of every map.
        scale = self.gate / _REACH**2
        dy = (self.rows - expected[:, 0::2]) ** 2 * scale + 1
        penalty: Tensor = dy + (self.cols - expected[:, 1::2]) ** 2 * scale
        return penalty


_MODEL = "StatefulPartitionedCall/center_net_mobile_net_v2fpn_feature_extractor/model_1/"
_READ = "/ReadVariableOp"


def _folded(name: str) -> tuple[str, str]:
    """Names of the weight and bias of a convolution that batch norm was folded into."""
    return f"{name}_weights", f"{name}_bn_offset"


def _plain(name: str, conv: str = "Conv2D") -> tuple[str, str]:
    """Names of the weight and bias of a convolution that has a bias of its own."""
    return f"{name}/{conv}{_READ}", f"{name}/BiasAdd{_READ}"


def _sources() -> Iterator[tuple[str, str, str | None]]:
    """Each convolution of MoveNet, and the tfjs names of its weight and of its bias."""
    yield "backbone.stem", *_folded(f"{_MODEL}model/Conv1/Conv2D")
    yield "backbone.last", *_folded(f"{_MODEL}model/Conv_1/Conv2D")
    for index in range(sum(_REPEATS)):
        block = f"{_MODEL}model/{f'block_{index}' if index else 'expanded_conv'}_"
        if index:
            yield f"backbone.blocks.{index}.expand", *_folded(f"{block}expand/Conv2D")
        yield f"backbone.blocks.{index}.depthwise", *_folded(f"{block}depthwise/depthwise")
        yield f"backbone.blocks.{index}.project", *_folded(f"{block}project/Conv2D")
    for level in range(4):
        suffix = f"_{level}" if level else ""
        yield f"pyramid.lateral.{level}", *_plain(f"{_MODEL}conv2d{suffix}")
        if level < 3:
            conv = f"{_MODEL}separable_conv2d{suffix}/separable_conv2d"
            yield f"pyramid.smooth.{level}.depthwise", f"{conv}{_READ}", None
            yield f"pyramid.smooth.{level}.pointwise", *_folded(conv)
    for number, name in enumerate(("center", "heatmap", "regress", "offset"), start=3):
        head = f"StatefulPartitionedCall/{'' if name == 'center' else 'kpt_'}{name}_0/"
        conv = f"{head}separable_conv2d_{number}"
        yield f"head.{name}.depthwise", f"{conv}/separable_conv2d{_READ}", None
        weight = f"{conv}/separable_conv2d{_READ}_1"
        yield f"head.{name}.pointwise", weight, f"{conv}/BiasAdd{_READ}"
        yield f"head.{name}.out", *_plain(f"{head}conv2d_{number + 1}")


def weights_from_tfjs(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float16]]:
    """MoveNet's state dict from a tfjs graph model's tensors by name, float16 and lossless.

    Kernels (H, W, in, out) become (out, in, H, W), depthwise ones (H, W, C, 1) (C, 1, H, W).
    Raises CheckpointError where a tensor is missing or is not float16.
    """
    state = {}
    for module, weight, bias in _sources():
        for name in filter(None, (weight, bias)):
            found = tensors.get(name)
            if found is None or found.dtype != np.float16:
                got = "nothing" if found is None else found.dtype
                raise CheckpointError(
                    f"movenet: wanted float16 {name!r} in the tfjs model, got {got}"
                )
        axes = (2, 3, 0, 1) if module.endswith("depthwise") else (3, 2, 0, 1)
        state[f"{module}.weight"] = np.ascontiguousarray(tensors[weight].transpose(axes))
        if bias is not None:
            state[f"{module}.bias"] = np.ascontiguousarray(tensors[bias])
    return state
