"""NanoDet (the CSP variant "g"), cut down to persons: image in, boxes and scores out.

A small CSPDarknet, a path aggregation network without weights of its own and one convolution a
level before the output. Batch norm is folded into the convolutions, as the published weights
have it.

Source: RangiLyu's NanoDet, config nanodet_g (Apache-2.0).
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

from posekit.errors import CheckpointError

SIZE = 416  # px, both sides; any multiple of 32 works, accuracy was measured here
STRIDES = (8, 16, 32)
_BINS = 11  # a side's distance is the expectation over 0..10 strides
_CLASSES = 80  # of COCO; the first is person
_WIDTH = 128  # channels of the pyramid
_SLOPE = 0.1
# Channels inside each stage (it gives twice as many), stride of its first convolution, parts.
_STAGES = ((32, 1, 1), (64, 2, 2), (128, 2, 2), (256, 2, 3))
# RGB in 0..255; the original takes BGR, so `weights_from_tfjs` turns the first kernel round.
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)


class _Conv(nn.Conv2d):
    """A 3 x 3 convolution with leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__(inputs, outputs, 3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(super().forward(x), _SLOPE)


class _Part(nn.Module):
    """Two convolutions of half the channels, joined: the second's result, then the first's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _Conv(channels, channels // 2)
        self.second = _Conv(channels // 2, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        return torch.cat([self.second(first), first], 1)


class _Stage(nn.Module):
    """Cross stage partial block: what the parts make of the entrance, joined with the entrance."""

    def __init__(self, inputs: int, channels: int, *, stride: int, parts: int) -> None:
        super().__init__()
        self.enter = _Conv(inputs, channels, stride=stride)
        self.parts = nn.Sequential(*(_Part(channels) for _ in range(parts)))
        self.leave = _Conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        entered = self.enter(x)
        return torch.cat([self.leave(self.parts(entered)), entered], 1)


class _Head(nn.Module):
    """One level's output: the person's logit, then 11 bins for each of left, top, right, bottom."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = _Conv(_WIDTH, _WIDTH)
        self.out = nn.Conv2d(_WIDTH, 1 + 4 * _BINS, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.out(self.conv(x))
        return maps


class NanoDet(nn.Module):
    """Person detector for images of any size that is a multiple of 32."""

    mean: Tensor
    std: Tensor
    bins: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(3, 32, stride=2)
        widths = [32, *(2 * channels for channels, _, _ in _STAGES)]
        self.stages = nn.ModuleList(
            _Stage(inputs, channels, stride=stride, parts=parts)
            for inputs, (channels, stride, parts) in zip(widths, _STAGES, strict=False)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, _WIDTH, 1) for width in widths[2:])
        self.head = nn.ModuleList(_Head() for _ in STRIDES)
        for name, values in (("mean", _MEAN), ("std", _STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("bins", torch.arange(_BINS, dtype=torch.float32), persistent=False)

    def heads(self, image: Tensor) -> list[Tensor]:
        """Maps (N, 45, H / s, W / s) at strides s 8, 16, 32: person's logit, then 4 x 11 bins.

        image: float32 (N, 3, H, W) RGB, 0..255.
        """
        x = F.max_pool2d(self.stem((image - self.mean) / self.std), 3, 2, 1)
        levels: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        levels = [lateral(x) for lateral, x in zip(self.lateral, levels[1:], strict=True)]
        for coarse, fine in ((2, 1), (1, 0)):
            levels[fine] = levels[fine] + _resized(levels[coarse], 2.0)
        for fine, coarse in ((0, 1), (1, 2)):
            levels[coarse] = levels[coarse] + _resized(levels[fine], 0.5)
        return [head(x) for head, x in zip(self.head, levels, strict=True)]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes float32 (N, A, 4), xyxy in input px, and scores (N, A) in [0, 1], one a cell.

        image: uint8 (N, H, W, 3) RGB, any H and W that are multiples of 32. Boxes overlap and may
        reach beyond the image; the center of the first pixel is (0, 0).
        """
        found = [
            self._boxes(maps, stride)
            for maps, stride in zip(
                self.heads(image.permute(0, 3, 1, 2).float()), STRIDES, strict=True
            )
        ]
        boxes, scores = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        return boxes, scores

    def _boxes(self, maps: Tensor, stride: int) -> tuple[Tensor, Tensor]:
        """A level's maps (N, 45, h, w) as boxes (N, h * w, 4) and scores (N, h * w)."""
        count, _, rows, columns = maps.shape
        flat = maps.flatten(2)
        bins = flat[:, 1:].transpose(1, 2).reshape(count, rows * columns, 4, _BINS)
        sides = (torch.softmax(bins, 3) * self.bins).sum(3) * stride
        x = torch.arange(columns, device=maps.device).expand(rows, columns)
        y = torch.arange(rows, device=maps.device)[:, None].expand(rows, columns)
        centers = (torch.stack([x, y], 2).reshape(-1, 2).float() + 0.5) * stride - 0.5
        boxes = torch.cat([centers - sides[:, :, :2], centers + sides[:, :, 2:]], 2)
        return boxes, torch.sigmoid(flat[:, 0])


def _resized(x: Tensor, scale: float) -> Tensor:
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


def _modules() -> Iterator[str]:
    """The names of the convolutions in the order of the tfjs model's tensors."""
    yield "stem"
    for n, (_, _, parts) in enumerate(_STAGES):
        yield f"stages.{n}.enter"
        for part in range(parts):
            yield f"stages.{n}.parts.{part}.first"
            yield f"stages.{n}.parts.{part}.second"
        yield f"stages.{n}.leave"
    for n in range(len(STRIDES)):
        yield f"lateral.{n}"
    for n in range(len(STRIDES)):
        yield f"head.{n}.conv"
        yield f"head.{n}.out"


_HEAD_BIASES = (60, 62, 66, 68, 70, 72)


def _sources() -> Iterator[tuple[str, str, str]]:
    """Each convolution, and the tfjs names of its weight and its bias."""
    biases = itertools.chain(range(0, 56, 2), _HEAD_BIASES)
    for n, (module, bias) in enumerate(zip(_modules(), biases, strict=True)):
        yield module, f"PartitionedCall/split{f'_{n}' if n else ''}", f"unknown_{bias}"


def weights_from_tfjs(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float16]]:
    """NanoDet's state dict from a tfjs graph model's tensors by name, float16 and lossless.

    Kernels (H, W, in, out) become (out, in, H, W); the stem takes RGB instead of BGR, and of the
    80 classes only person stays. Raises CheckpointError where a tensor is missing or not float16.
    """
    state = {}
    for module, *names in _sources():
        for name in names:
            found = tensors.get(name)
            if found is None or found.dtype != np.float16:
                got = "nothing" if found is None else found.dtype
                raise CheckpointError(
                    f"nanodet: wanted float16 {name!r} in the tfjs model, got {got}"
                )
        weight, bias = tensors[names[0]].transpose(3, 2, 0, 1), tensors[names[1]]
        if module == "stem":
            weight = weight[:, ::-1]
        if module.endswith(".out"):
            person = [0, *range(_CLASSES, _CLASSES + 4 * _BINS)]
            weight, bias = weight[person], bias[person]
        state[f"{module}.weight"] = np.ascontiguousarray(weight)
        state[f"{module}.bias"] = np.ascontiguousarray(bias)
    return state
