"""Heatmap layout, limits and checks that the three kernels' launches share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from posekit.errors import InputError
from posekit_engines.cuda.device import Buffer

DTYPE_SUFFIX = {np.dtype(np.float16): "f16", np.dtype(np.float32): "f32"}
_MAX_PERSONS = 65535  # blocks along a grid's second or third axis
MAX_SHARED_BYTES = 48 << 10  # per block, on any GPU without opting in to more


@dataclass(frozen=True)
class Maps:
    """Heatmaps on the GPU.  shape: (N, K, h, w).  dtype: float16 or float32.

    address, mirrored: of the maps of the crops and of the mirrored crops, 0 for none.
    strides: in cells between persons, keypoints and rows; None: dense.
    """

    address: int
    mirrored: int
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    strides: tuple[int, int, int] | None = None

    @classmethod
    def of(cls, maps: Buffer, count: int, *, flip: bool) -> Maps:
        """From an engine's output (count, K, h, w), with `flip` followed by as many mirrored ones.

        Raises InputError.
        """
        if len(maps.shape) != 4 or maps.shape[0] < count * (1 + flip):
            raise InputError(
                f"heatmaps: wanted (N, K, h, w) with N >= {count * (1 + flip)}, got {maps.shape}"
            )
        _, keypoints, height, width = maps.shape
        size = count * keypoints * height * width * maps.dtype.itemsize
        mirrored = maps.address + size if flip else 0
        return cls(maps.address, mirrored, (count, keypoints, height, width), maps.dtype)

    @property
    def dense(self) -> tuple[int, int, int]:
        """The strides in cells."""
        _, keypoints, height, width = self.shape
        return self.strides or (keypoints * height * width, height * width, width)


def check_person_count(count: int) -> int:
    """`count`, checked against the most that one launch can take. Raises InputError."""
    if count > _MAX_PERSONS:
        raise InputError(f"persons: {count} in one batch; at most {_MAX_PERSONS}: split it")
    return count


def check_rows(name: str, buffer: Buffer, wanted: tuple[int, ...]) -> None:
    """The buffer is float32 of the shape `wanted`, or has more rows. Raises InputError."""
    fits = buffer.shape[1:] == wanted[1:] and buffer.shape[0] >= wanted[0]
    if buffer.dtype != np.float32 or not fits:
        raise InputError(f"{name}: wanted float32 {wanted}, got {buffer.dtype} {buffer.shape}")
