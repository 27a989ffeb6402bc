"""ViTPose: a plain vision transformer and a light decoder, classic or simple.

Names are the original repository's (blocks.N.attn.qkv ...), after `backbone.` and `head.`.
No stochastic depth: it is a matter of training from scratch.

Source: Xu, Zhang, Zhang and Tao, NeurIPS 2022 (ViTPose), and TPAMI 2023 (ViTPose++).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # the name that every torch program uses
from torch import Tensor, nn

from posekit.errors import CheckpointError, InputError
from posekit.nets.simple_baseline import DeconvHead, start_head

# Channels, blocks, heads.
_SIZES = {"s": (384, 12, 12), "b": (768, 12, 12), "l": (1024, 24, 16), "h": (1280, 32, 16)}
_PATCH = 16
_EPSILON = 1e-6  # of the layer norms


class _Attention(nn.Module):
    """Self-attention whose query, key and value come from one matrix."""

    def __init__(self, channels: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.shape = (-1, tokens, 3, heads, channels // heads)

    def forward(self, x: Tensor) -> Tensor:
        tokens, _, heads, depth = self.shape[1:]
        q, k, v = self.qkv(x).reshape(self.shape).permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((q * depth**-0.5) @ k.transpose(-2, -1)).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).reshape(-1, tokens, heads * depth)
        result: Tensor = self.proj(mixed)
        return result


class _Mlp(nn.Module):
    """Two layers around a GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return result


class _Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, channels: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=_EPSILON)
        self.attn = _Attention(channels, heads, tokens)
        self.norm2 = nn.LayerNorm(channels, eps=_EPSILON)
        self.mlp = _Mlp(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        deeper: Tensor = self.mlp(self.norm2(x))
        return x + deeper


class _PatchEmbed(nn.Module):
    """16 x 16 patches at stride 16, with 2 pixels of padding as ViTPose has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, _PATCH, stride=_PATCH, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        patches: Tensor = self.proj(x)
        return patches


class _Backbone(nn.Module):
    """The transformer; features (N, C, H / 16, W / 16)."""

    def __init__(self, size: str, rows: int, columns: int) -> None:
        super().__init__()
        self.channels, depth, heads = _SIZES[size]
        self.rows, self.columns = rows, columns
        tokens = rows * columns
        self.patch_embed = _PatchEmbed(self.channels)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens + 1, self.channels))
        self.blocks = nn.Sequential(*(_Block(self.channels, heads, tokens) for _ in range(depth)))
        self.last_norm = nn.LayerNorm(self.channels, eps=_EPSILON)
        if not self.pos_embed.is_meta:  # built for its shapes alone: slow there
            self._start()

    def _start(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embed(image).reshape(-1, self.channels, self.rows * self.columns)
        # There is no class token; its place in the embedding is added to every patch.
        x = x.transpose(1, 2) + self.pos_embed[:, 1:] + self.pos_embed[:, :1]
        features: Tensor = self.last_norm(self.blocks(x)).transpose(1, 2)
        return features.reshape(-1, self.channels, self.rows, self.columns)


class _SimpleHead(nn.Module):
    """ReLU, bilinear growth by four, 3 x 3 convolution."""

    def __init__(self, inputs: int, joints: int) -> None:
        super().__init__()
        self.final_layer = nn.Conv2d(inputs, joints, 3, padding=1)
        start_head(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(F.relu(x), scale_factor=4.0, mode="bilinear", align_corners=False)
        maps: Tensor = self.final_layer(x)
        return maps


class ViTPose(nn.Module):
    """ViTPose of `size` s, b, l or h for one input size (W, H), px, multiples of 16.

    simple: the decoder without deconvolutions.  Raises CheckpointError, InputError.
    """

    def __init__(
        self, size: str, input_size: tuple[int, int], joints: int = 17, *, simple: bool = False
    ) -> None:
        super().__init__()
        if size not in _SIZES:
            raise CheckpointError(f"no ViTPose of size {size!r}; wanted one of {sorted(_SIZES)}")
        width, height = input_size
        if width % _PATCH or height % _PATCH:
            raise InputError(f"vitpose: input {width}x{height} px; wanted multiples of {_PATCH}")
        self.backbone = _Backbone(size, height // _PATCH, width // _PATCH)
        channels = self.backbone.channels
        self.head = _SimpleHead(channels, joints) if simple else DeconvHead(channels, joints, 2)

    def forward(self, image: Tensor) -> Tensor:
        """Heatmaps (N, K, H / 4, W / 4) of `image` float32 (N, 3, H, W), normalized."""
        maps: Tensor = self.head(self.backbone(image))
        return maps
