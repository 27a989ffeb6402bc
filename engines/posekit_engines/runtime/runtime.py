"""posekit's runtime on an NVIDIA GPU: methods and units of `posekit.inference.runtime.Runtime`.

Whole frames are uploaded; kernels, with the network between them, compute the points; 12 bytes per
keypoint are downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from posekit.bundle import Bundle
from posekit.errors import InputError
from posekit.geometry import Warp
from posekit.inference.session import usable_threads
from posekit.inference.tta import TtaOptions, matrix_of
from posekit.types import Float32, Frame, ModelSpec, UInt8
from posekit.video import SurfaceDecoders, rgb_of
from posekit_engines.cuda.device import Device
from posekit_engines.runtime import nvdec
from posekit_engines.runtime.batch import BUCKETS, BatchRunner, PendingBatch, joined_points
from posekit_engines.runtime.buffers import CropRequest, DecodedFrame, FramePool
from posekit_engines.runtime.engine import Engine


class PendingPoses:
    """The points of a queued request, as a future."""

    def __init__(self, batches: list[PendingBatch], keypoints: int) -> None:
        self._batches, self._keypoints = batches, keypoints

    def result(self) -> tuple[Float32, Float32]:
        """Points float32 (N, K, 2), crop px, and scores (N, K). Raises DeviceError, KernelError."""
        return joined_points(self._batches, self._keypoints)


class GpuRuntime:
    """A pose model on a GPU: `crops`, then `infer`, as in `posekit.inference.runtime.Runtime`.

    engine: the bundle's network on `device`.  tta: flip test or several views, as in
    `posekit.inference.tta.TtaRuntime`.  max_persons: in one batch.
    graphs: replay batches as CUDA graphs.
    provider: the library that runs it.  notes: what differs from the request, a sentence each.
    decoders: the GPU's video decoder, or None.  Thread-safe.
    Raises BundleError, EngineError, DeviceError.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Device,
        engine: Engine,
        *,
        tta: TtaOptions,
        max_persons: int = BUCKETS[-1],
        graphs: bool = True,
    ) -> None:
        self.bundle = bundle
        self.spec: ModelSpec = bundle.pose_spec
        self.flip = tta.mirrored
        self.calibration = bundle.calibration(tta.graph)
        self._views = np.stack([matrix_of(view, self.spec) for view in tta.each])
        self.threads = usable_threads()
        self.device = f"cuda:{device.info.index} {device.info.name}, {device.driver.name}"
        self.provider = engine.name
        self._frames = FramePool(device)
        self._runner = BatchRunner(
            device, engine, self.spec, tta=tta, max_persons=max_persons, graphs=graphs
        )
        self.notes = self._runner.notes
        self.decoders: SurfaceDecoders | None
        self.decoders, notes = nvdec.open_nvdec(device, self._frames)
        self.notes += notes

    @property
    def buckets(self) -> tuple[int, ...]:
        """Batch sizes, in persons; other batches are padded to the next one."""
        return self._runner.buckets

    def prefetch(self, images: Sequence[UInt8 | DecodedFrame]) -> None:
        """Start uploading images that `crops` will get later, while others are computed.

        They must not change until then. Raises DeviceError.
        """
        self._frames.prefetch(images)

    def crop(self, image: UInt8 | DecodedFrame, warp: Warp) -> CropRequest:
        """`crops` of one image. Raises InputError, DeviceError."""
        return self.crops([image], [warp])

    def crops(self, images: Sequence[UInt8 | DecodedFrame], warps: Sequence[Warp]) -> CropRequest:
        """Start uploading images uint8 (H, W, 3) RGB that are not yet; `infer` crops the persons.

        Frames that were decoded on the GPU are used in place.
        Raises InputError, DeviceError.
        """
        if len(images) != len(warps):
            raise InputError(f"crops: {len(images)} images and {len(warps)} warps")
        used = []
        for image, warp in zip(images, warps, strict=True):
            if len(warp) == 0:
                self._frames.discard(image)
            else:
                used.append((image, warp))
        frames = _with_one_layout([image for image, _ in used])
        return CropRequest(self._frames, frames, [warp for _, warp in used], views=self._views)

    def queue(self, request: CropRequest) -> PendingPoses:
        """Start on a request without waiting for it. Raises EngineError, DeviceError."""
        size = self.buckets[-1]
        batches = [
            self._runner.queue(request, start, min(start + size, len(request)))
            for start in range(0, len(request), size)
        ]
        return PendingPoses(batches, len(self.spec.skeleton))

    def infer(self, crops: CropRequest) -> tuple[Float32, Float32]:
        """Points float32 (N, K, 2), crop px, and scores (N, K). Raises EngineError, DeviceError."""
        return self.queue(crops).result()

    def prepare(self, persons: Sequence[int] = BUCKETS) -> None:
        """Compile, run once and record in advance what batches of these sizes need.

        Raises EngineError, DeviceError.
        """
        self._runner.prepare(persons)


def _with_one_layout(images: Sequence[UInt8 | DecodedFrame]) -> list[UInt8 | DecodedFrame]:
    """Unchanged where one launch can read them all, else all as RGB on the host.

    Raises InputError, DeviceError.
    """
    decoded = [image for image in images if isinstance(image, DecodedFrame)]
    if len(decoded) == len(images) and len({each.slot.layout for each in decoded}) == 1:
        return list(decoded)
    return [
        rgb_of(image.nv12(), image.coded) if isinstance(image, DecodedFrame) else Frame(image).image
        for image in images
    ]
