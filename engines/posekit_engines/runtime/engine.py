"""The interface of the network between the GPU runtime's kernels.

`posekit_engines.trt.engine` implements it with TensorRT; a test with ONNX Runtime.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from posekit.errors import EngineError
from posekit.types import ModelSpec

DTYPES = (np.dtype(np.float16), np.dtype(np.float32))


class Engine(Protocol):
    """A network on the GPU: normalized images (N, 3, h, w) to heatmaps (N, K, h', w').

    name: library and version, for summaries.  image, heatmaps: shapes without N.
    image_dtype, heatmaps_dtype: float16 or float32; the kernels write and read these.
    min_images, max_images: limits of N.
    """

    name: str
    image: tuple[int, ...]
    heatmaps: tuple[int, ...]
    image_dtype: np.dtype[Any]
    heatmaps_dtype: np.dtype[Any]
    min_images: int
    max_images: int

    def prepare(self, image: int, heatmaps: int, *, count: int) -> None:
        """Prepare runs of `count` images at these addresses: what a CUDA graph cannot record.

        Raises EngineError.
        """
        ...

    def enqueue(self, count: int, stream: int) -> None:
        """Queue the network for `count` prepared images; it only queues work.

        Raises EngineError.
        """
        ...

    def capturable(self, count: int, stream: int) -> str:
        """ "" where a CUDA graph can record `enqueue`, or why not; called after a first run."""
        ...


def check_fits(engine: Engine, spec: ModelSpec) -> None:
    """The engine's shapes and types are those of the spec. Raises EngineError."""
    width, height = spec.input_size
    columns, rows = spec.heatmap_size
    wanted = ((3, height, width), (len(spec.skeleton), rows, columns))
    got = (tuple(engine.image), tuple(engine.heatmaps))
    if got != wanted:
        raise EngineError(
            f"{engine.name}: takes images {got[0]} and outputs heatmaps {got[1]}; the model's spec "
            f"has {wanted[0]} and {wanted[1]}: the engine was built for another model"
        )
    for what, dtype in (("image", engine.image_dtype), ("heatmaps", engine.heatmaps_dtype)):
        if dtype not in DTYPES:
            raise EngineError(f"{engine.name}: {what} is {dtype}; wanted float16 or float32")
