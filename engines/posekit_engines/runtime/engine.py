"""What the GPU runtime asks of a network between its kernels.

`posekit_engines.trt.engine` is the one that is shipped; a test runs ONNX Runtime in its place.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from posekit.errors import EngineError
from posekit.types import ModelSpec

KINDS = (np.dtype(np.float16), np.dtype(np.float32))


class Engine(Protocol):
    """A network on the GPU: normalised images (N, 3, h, w) to heatmaps (N, K, h', w').

    name: of what runs it, for summaries.  image, heatmaps: shapes of one.
    image_dtype, heatmaps_dtype: float16 or float32; the kernels write and read these.
    least, most: images that it takes at a time.
    """

    name: str
    image: tuple[int, ...]
    heatmaps: tuple[int, ...]
    image_dtype: np.dtype[Any]
    heatmaps_dtype: np.dtype[Any]
    least: int
    most: int

    def prepare(self, image: int, heatmaps: int, *, count: int) -> None:
        """Get ready for `count` images at these addresses: what a graph must not record.

        Raises EngineError.
        """
        ...

    def enqueue(self, count: int, stream: int) -> None:
        """Queue the network for `count` images where `prepare` was told; it only queues work.

        Raises EngineError.
        """
        ...

    def capturable(self, count: int, stream: int) -> str:
        """ "" where a CUDA graph may record `enqueue`, or why not; asked after a first run."""
        ...


def check_fits(engine: Engine, spec: ModelSpec) -> None:
    """The engine takes and gives what the spec says. Raises EngineError."""
    width, height = spec.input_size
    columns, rows = spec.heatmap_size
    wanted = ((3, height, width), (len(spec.skeleton), rows, columns))
    got = (tuple(engine.image), tuple(engine.heatmaps))
    if got != wanted:
        raise EngineError(
            f"{engine.name}: takes images {got[0]} and gives heatmaps {got[1]}; the model's spec "
            f"says {wanted[0]} and {wanted[1]}: the engine was made for another model"
        )
    for what, dtype in (("image", engine.image_dtype), ("heatmaps", engine.heatmaps_dtype)):
        if dtype not in KINDS:
            raise EngineError(f"{engine.name}: {what} is {dtype}; wanted float16 or float32")
