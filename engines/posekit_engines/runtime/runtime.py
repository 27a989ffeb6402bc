"""posekit's own path on an NVIDIA GPU, in place of `posekit.runtime.Runtime`: same calls and units.

Pictures go up whole; kernels with the network between them give points; 12 bytes a keypoint
come back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from posekit.bundle import Bundle
from posekit.errors import InputError
from posekit.geometry import Warp
from posekit.session import usable_threads
from posekit.tta import TtaOptions, matrix_of
from posekit.types import Float32, Frame, ModelSpec, UInt8
from posekit.video import SurfaceDecoders, rgb_of
from posekit_engines.cuda.device import Device
from posekit_engines.runtime import nvdec
from posekit_engines.runtime.batch import BUCKETS, BatchRunner, PendingBatch, joined
from posekit_engines.runtime.buffers import CropRequest, Decoded, FramePool
from posekit_engines.runtime.engine import Engine


class PendingPoses:
    """The points of a cut, as soon as they are there."""

    def __init__(self, parts: list[PendingBatch], keypoints: int) -> None:
        self._parts, self._keypoints = parts, keypoints

    def result(self) -> tuple[Float32, Float32]:
        """Points float32 (N, K, 2), crop px, and scores (N, K). Raises DeviceError, KernelError."""
        return joined(self._parts, self._keypoints)


class GpuRuntime:
    """A pose model on a GPU: `crops`, then `infer`, as `posekit.runtime.Runtime` does it.

    engine: the bundle's network on `device`.  look: at the mirrored crops too, or in several views,
    as `posekit.tta.MultiView` does.
    most: persons in one batch at most.  graphs: replay whole batches as CUDA graphs.
    `provider` says what runs it, `notes` what is not as asked, `decoders` who decodes videos on
    the GPU. Threads may share it.
    Raises BundleError, EngineError, DeviceError.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Device,
        engine: Engine,
        *,
        look: TtaOptions,
        most: int = BUCKETS[-1],
        graphs: bool = True,
    ) -> None:
        self.bundle = bundle
        self.spec: ModelSpec = bundle.pose_spec
        self.flip = look.mirrored
        self.calibration = bundle.calibration(look.graph)
        self._views = np.stack([matrix_of(view, self.spec) for view in look.each])
        self.threads = usable_threads()
        self.device = f"cuda:{device.info.index} {device.info.name}, {device.driver.name}"
        self.provider = engine.name
        self._pictures = FramePool(device)
        self._step = BatchRunner(device, engine, self.spec, look=look, most=most, graphs=graphs)
        self.notes = self._step.notes
        self.decoders: SurfaceDecoders | None
        self.decoders, lacking = nvdec.decoders(device, self._pictures)
        self.notes += lacking

    @property
    def buckets(self) -> tuple[int, ...]:
        """Sizes of batches, in persons; others are filled up."""
        return self._step.buckets

    def ahead(self, images: Sequence[UInt8 | Decoded]) -> None:
        """Start uploading pictures that `crops` will be asked for, while others are computed.

        They must not change until then. Raises DeviceError.
        """
        self._pictures.ahead(images)

    def crop(self, image: UInt8 | Decoded, warp: Warp) -> CropRequest:
        """`crops` of one picture. Raises InputError, DeviceError."""
        return self.crops([image], [warp])

    def crops(self, images: Sequence[UInt8 | Decoded], warps: Sequence[Warp]) -> CropRequest:
        """Start uploading what is not there yet, uint8 (H, W, 3) RGB; `infer` cuts the persons out.

        Pictures that were decoded on the GPU are taken where they lie.

        Raises InputError, DeviceError.
        """
        if len(images) != len(warps):
            raise InputError(f"crops: {len(images)} images and {len(warps)} warps")
        taken = []
        for image, warp in zip(images, warps, strict=True):
            if len(warp) == 0:
                self._pictures.drop(image)
            else:
                taken.append((image, warp))
        pictures = _alike([image for image, _ in taken])
        return CropRequest(self._pictures, pictures, [warp for _, warp in taken], views=self._views)

    def queue(self, cut: CropRequest) -> PendingPoses:
        """Start on a cut without waiting for it. Raises EngineError, DeviceError."""
        size = self.buckets[-1]
        parts = [
            self._step.queue(cut, start, min(start + size, len(cut)))
            for start in range(0, len(cut), size)
        ]
        return PendingPoses(parts, len(self.spec.skeleton))

    def infer(self, crops: CropRequest) -> tuple[Float32, Float32]:
        """Points float32 (N, K, 2), crop px, and scores (N, K). Raises EngineError, DeviceError."""
        return self.queue(crops).result()

    def prepare(self, persons: Sequence[int] = BUCKETS) -> None:
        """Compile, run once and record what batches of so many persons need, before they come.

        Raises EngineError, DeviceError.
        """
        self._step.prepare(persons)


def _alike(images: Sequence[UInt8 | Decoded]) -> list[UInt8 | Decoded]:
    """As they are where one launch can read them all, else every one as RGB on the host.

    Raises InputError, DeviceError.
    """
    decoded = [image for image in images if isinstance(image, Decoded)]
    if len(decoded) == len(images) and len({each.slot.layout for each in decoded}) == 1:
        return list(decoded)
    return [
        rgb_of(image.nv12(), image.coded) if isinstance(image, Decoded) else Frame(image).image
        for image in images
    ]
