"""Launch of `decode_flip`: heatmaps to keypoints.

Like every launch it only queues work and allocates nothing, so that a CUDA graph can record it.
`kernels/decode_flip.cu` documents what it reads and writes; `ops.reference` computes the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posekit.errors import InputError
from posekit.types import ModelSpec
from posekit_engines.cuda.device import Buffer, Device, Stream
from posekit_engines.cuda.driver import Launch
from posekit_engines.kernels import THREADS
from posekit_engines.ops.launch import (
    DTYPE_SUFFIX,
    MAX_SHARED_BYTES,
    Maps,
    check_person_count,
    check_rows,
)

# the kernel's struct; a test compares its size with the source
DECODE_FLIP = np.dtype(
    [
        ("maps", np.uint64),
        ("mirrored", np.uint64),
        ("mirror", np.uint64),
        ("blur", np.uint64),
        ("to_frame", np.uint64),
        ("out", np.uint64),
        ("strides", np.int64, 3),
        ("size", np.int32, 2),  # height, width
        ("refine", np.int32),
        ("blur_side", np.int32),
        ("whole", np.int32),
        ("toward", np.int32),
        ("share", np.float32),
        ("scale", np.float32, 2),
        ("offset", np.float32, 2),
    ],
    align=True,
)
_REFINE = {"argmax": 0, "quarter": 1, "quarter-axis": 2, "dark": 3, "udp": 4}


@dataclass(frozen=True)
class DecodeTables:
    """Constants of `decode_flip` for a spec, on the GPU: mirror indices and the 1-D blur kernel."""

    spec: ModelSpec
    mirror: Buffer
    blur: Buffer

    @classmethod
    def of(cls, device: Device, spec: ModelSpec) -> DecodeTables:
        """Upload them, once for a model. Raises DeviceError."""
        mirror = np.array(spec.skeleton.mirror or range(len(spec.skeleton)), np.int32)
        return cls(spec, device.upload(mirror), device.upload(blur_kernel(spec.blur)))


def blur_kernel(blur: int) -> NDArray[np.float32]:
    """The 1-D Gaussian of `codecs.blur_matrix`, (blur,) float32, sum 1."""
    sigma = 0.3 * ((blur - 1) / 2 - 1) + 0.8
    line = np.exp(-((np.arange(blur) - blur // 2) ** 2) / (2 * sigma**2))
    return np.asarray(line / line.sum(), np.float32)


def decode_flip(
    device: Device,
    maps: Maps,
    tables: DecodeTables,
    *,
    out: Buffer,
    to_frame: Buffer | None = None,
    stream: Stream | None = None,
) -> None:
    """Queue one launch: heatmaps to `out` float32 (N, K, 3), x, y and score.

    x, y are crop px or, with `to_frame` float32 (N, 2, 3) (crop px to frame px), frame px.
    Raises InputError, KernelError.
    """
    spec, (persons, keypoints, height, width) = tables.spec, maps.shape
    wanted = (len(spec.skeleton), spec.heatmap_size[1], spec.heatmap_size[0])
    if maps.shape[1:] != wanted or maps.dtype not in DTYPE_SUFFIX:
        raise InputError(
            f"heatmaps: wanted float16 or float32 (N, {', '.join(map(str, wanted))}), got "
            f"{maps.dtype} {maps.shape}"
        )
    check_rows("out", out, (persons, keypoints, 3))
    if to_frame is not None:
        check_rows("to_frame", to_frame, (persons, 2, 3))
    if persons == 0:
        return
    argument = np.zeros((), DECODE_FLIP)
    argument["maps"], argument["mirrored"] = maps.address, maps.mirrored
    argument["mirror"], argument["blur"] = tables.mirror.address, tables.blur.address
    argument["to_frame"] = 0 if to_frame is None else to_frame.address
    argument["out"] = out.address
    argument["strides"], argument["size"] = maps.dense, (height, width)
    argument["refine"], argument["blur_side"] = _REFINE[spec.decode], spec.blur
    whole = math.trunc(spec.flip_shift)
    part = spec.flip_shift - whole
    argument["whole"] = max(1 - width, min(width - 1, whole))
    argument["toward"], argument["share"] = (part > 0) - (part < 0), abs(part)
    argument["scale"], argument["offset"] = spec.map_scale, spec.map_offset
    grid = (keypoints, check_person_count(persons), 1)
    launch = Launch(grid, THREADS, _decode_shared(spec), argument.tobytes())
    name = f"decode_flip_{DTYPE_SUFFIX[maps.dtype]}"
    device.launch("decode_flip", name, launch=launch, stream=stream)


def _decode_shared(spec: ModelSpec) -> int:
    """Bytes for a block: a key per warp; for DARK and UDP the patch, its rows and two squares."""
    size = 8 * (THREADS // 32)
    if spec.decode in ("dark", "udp"):
        reach = 2 if spec.decode == "dark" else 1
        side, kept = 2 * (reach + spec.blur // 2) + 1, 2 * reach + 1
        size += 4 * (side * side + side * kept + 2 * kept * kept)
    if size > MAX_SHARED_BYTES:
        raise InputError(
            f"spec: a blur over {spec.blur} cells needs {size} bytes of shared memory, a block has "
            f"{MAX_SHARED_BYTES}; choose a smaller blur"
        )
    return size
