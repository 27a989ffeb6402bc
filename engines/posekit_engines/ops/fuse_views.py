"""Launch of `fuse_views`: heatmaps of several views to their weighted mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from posekit.errors import InputError
from posekit.inference.tta import View, cells_of
from posekit.types import ModelSpec
from posekit_engines.cuda.device import Buffer, Device, Stream
from posekit_engines.cuda.driver import Launch
from posekit_engines.kernels import THREADS
from posekit_engines.ops.launch import DTYPE_SUFFIX, Maps, check_person_count, check_rows

FUSE_VIEWS = np.dtype(
    [
        ("maps", np.uint64),
        ("found", np.uint64),
        ("to_view", np.uint64),
        ("holder", np.uint64),
        ("out", np.uint64),
        ("views", np.int32),
        ("size", np.int32, 2),  # height, width
    ],
    align=True,
)


@dataclass(frozen=True)
class ViewTables:
    """Constants of `fuse_views` for V views and a spec, on the GPU.

    to_view: float32 (V, 2, 3), cells of the crop to cells of the view.  holder: int32 (V, K), index
    of the view's map for a keypoint.
    """

    to_view: Buffer
    holder: Buffer

    @classmethod
    def of(cls, device: Device, spec: ModelSpec, views: Sequence[View]) -> ViewTables:
        """Upload them, once for a model. Raises DeviceError."""
        cells = np.stack([cells_of(view, spec) for view in views]).astype(np.float32)
        own = np.arange(len(spec.skeleton))
        holder = [spec.skeleton.mirror if view.mirrored else own for view in views]
        return cls(device.upload(cells), device.upload(np.array(holder, np.int32)))


def fuse_views(
    device: Device,
    maps: Maps,
    tables: ViewTables,
    *,
    found: Buffer,
    out: Buffer,
    stream: Stream | None = None,
) -> None:
    """Queue one launch: dense maps of N V views to `out` float32 (N, K, h, w), their mean.

    found: float32 (N V, K, 3), `decode_flip`'s output for those maps: their peaks are the weights.
    Raises InputError, KernelError.
    """
    images, keypoints, height, width = maps.shape
    views = tables.holder.shape[0]
    if (
        images % views
        or maps.strides is not None
        or maps.mirrored
        or maps.dtype not in DTYPE_SUFFIX
    ):
        raise InputError(
            f"views: wanted dense float16 or float32 maps of {views} views per person, got "
            f"{maps.dtype} {maps.shape}"
        )
    check_rows("found", found, (images, keypoints, 3))
    check_rows("out", out, (images // views, keypoints, height, width))
    if images == 0:
        return
    argument = np.zeros((), FUSE_VIEWS)
    argument["maps"], argument["found"] = maps.address, found.address
    argument["to_view"], argument["holder"] = tables.to_view.address, tables.holder.address
    argument["out"], argument["views"], argument["size"] = out.address, views, (height, width)
    grid = (-(-height * width // THREADS), keypoints, check_person_count(images // views))
    launch = Launch(grid, THREADS, 4 * views, argument.tobytes())
    name = f"fuse_views_{DTYPE_SUFFIX[maps.dtype]}"
    device.launch("fuse_views", name, launch=launch, stream=stream)
