"""The memory of the GPU runtime: frames, and the inputs and outputs of a batch.

Frames are uploaded on a stream of their own, so that the next ones are copied while a batch is
computed. The rest of a batch is one small pinned block uploaded and one downloaded.
"""

from __future__ import annotations

import collections
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit.geometry import Float64, Warp, compose
from posekit.types import Float32, ModelSpec, UInt8
from posekit.video import Coded
from posekit_engines.cuda.device import Buffer, Device, Event, Stream
from posekit_engines.ops.crop_normalize import BT709, FRAME, ColorMatrix, Format, frame_table
from posekit_engines.runtime.engine import Engine

_SLOT_BYTES = 1 << 20  # slot sizes are multiples of this, so that similar frames share them
_MAX_PREFETCHED = 16  # frames that wait to be used; the oldest is discarded for a new one
_OUTSIDE = np.array([[0, 0, -2], [0, 0, -2]], np.float32)  # a crop outside every frame: black


@dataclass(frozen=True)
class Layout:
    """Pixel layout of a frame on the GPU.  color: converts NV12 to RGB."""

    format: Format = "rgb"
    color: ColorMatrix = BT709

    @classmethod
    def of(cls, coded: Coded) -> Layout:
        """The layout of a video's frames."""
        red, blue = (0.2126, 0.0722) if coded.bt709 else (0.299, 0.114)
        return cls("nv12", ColorMatrix.of(red, blue, full_range=coded.full_range))


RGB = Layout()


class Slot:
    """Memory for one frame, on the host and on the GPU.

    uploaded, read: events after the last write to the GPU's memory and the last read of it.
    """

    def __init__(self, device: Device, size: int) -> None:
        self.size = size
        self.pinned: UInt8 = device.pinned((size,), np.uint8)
        self.buffer: Buffer = device.buffer((size,), np.uint8)
        self.uploaded, self.read = device.event(), device.event()
        self.shape: tuple[int, ...] = (0, 0, 3)  # (H, W) of NV12
        self.layout = RGB

    @property
    def row(self) -> tuple[int, int, int, int]:
        """Address, width, height and bytes between rows, for `crop_normalize.frame_table`."""
        height, width, *channels = self.shape
        return self.buffer.address, width, height, width * int(np.prod(channels))


class DecodedFrame:
    """A frame that was decoded on the GPU, in a slot of its own: a `posekit.video.Surface`."""

    def __init__(self, frames: FramePool, slot: Slot, coded: Coded, *, pts: int) -> None:
        self.slot, self.coded, self.pts = slot, coded, pts
        self._frames = frames
        weakref.finalize(self, frames.release, [slot]).atexit = False

    def nv12(self) -> UInt8:
        """A copy on the host, (H 3 / 2, W). Raises DeviceError."""
        width, height = self.coded.size
        return self._frames.download(self.slot, (height * 3 // 2, width))


class FramePool:
    """Frames on the GPU: RGB ones uploaded on a stream of their own, or decoded there."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.stream: Stream = device.stream()
        self._free: list[Slot] = []
        # holds the images, so that no other object gets their ids
        self._prefetched: collections.OrderedDict[int, tuple[UInt8, Slot]] = (
            collections.OrderedDict()
        )
        self._lock = threading.RLock()

    def prefetch(self, images: Sequence[UInt8 | DecodedFrame]) -> None:
        """Start uploading images that will be used. They must not change until then."""
        with self._lock:
            for image in images:
                if isinstance(image, DecodedFrame) or id(image) in self._prefetched:
                    continue
                if len(self._prefetched) >= _MAX_PREFETCHED:
                    self.release([self._prefetched.popitem(last=False)[1][1]])
                self._prefetched[id(image)] = (image, self._upload(image))

    def acquire(self, images: Sequence[UInt8 | DecodedFrame]) -> list[Slot]:
        """Their slots, uploaded or being uploaded. Raises DeviceError."""
        with self._lock:
            return [
                image.slot if isinstance(image, DecodedFrame) else self._slot_of(image)
                for image in images
            ]

    def _slot_of(self, image: UInt8) -> Slot:
        return (
            self._prefetched.pop(id(image))[1]
            if id(image) in self._prefetched
            else self._upload(image)
        )

    def copy_planes(self, planes: Sequence[tuple[int, int]], coded: Coded, stream: Stream) -> Slot:
        """A slot into which a decoded frame is copied: addresses and sizes of luma and chroma.

        The copy is queued on `stream`, on which they were decoded. Raises DeviceError.
        """
        slot = self._free_slot(sum(size for _, size in planes))
        slot.shape, slot.layout = coded.size[::-1], Layout.of(coded)
        stream.wait(slot.read)  # the previous batch has read the old content
        start = 0
        for address, size in planes:
            slot.buffer.copy(start, address, size, stream=stream)
            start += size
        slot.uploaded.record(stream)
        return slot

    def download(self, slot: Slot, shape: tuple[int, ...]) -> UInt8:
        """A copy of the first bytes of a slot, on the host. Raises DeviceError."""
        size = int(np.prod(shape))
        self.stream.wait(slot.uploaded)
        slot.buffer.download(slot.pinned[:size], self.stream)
        self.stream.synchronize()
        return slot.pinned[:size].reshape(shape).copy()

    def discard(self, image: UInt8 | DecodedFrame) -> None:
        """Free the slot of a prefetched image that is not used."""
        with self._lock:
            if id(image) in self._prefetched:
                self.release([self._prefetched.pop(id(image))[1]])

    def release(self, slots: Sequence[Slot]) -> None:
        """Free slots: no launch from now on reads them."""
        with self._lock:
            self._free.extend(slots)

    def _upload(self, image: UInt8) -> Slot:
        slot = self._free_slot(image.nbytes)
        slot.uploaded.synchronize()  # the previous upload has read the pinned bytes
        slot.shape, slot.layout = image.shape, RGB
        pinned = slot.pinned[: image.nbytes]
        np.copyto(pinned.reshape(image.shape), image)
        self.stream.wait(slot.read)  # the previous batch has read the GPU's bytes
        slot.buffer.upload(pinned, self.stream)
        slot.uploaded.record(self.stream)
        return slot

    def _free_slot(self, size: int) -> Slot:
        """The slot that has been free longest, or a new one in place of one too small."""
        with self._lock:
            for n, slot in enumerate(self._free):
                if slot.size >= size:
                    return self._free.pop(n)
            if self._free:
                del self._free[0]
        return Slot(self._device, -(-size // _SLOT_BYTES) * _SLOT_BYTES)


class CropRequest:
    """N persons to be cropped from frames that are on the GPU or being uploaded.

    views: (V, 2, 3), crop px to each view's px; the identity for the crop itself.
    frame_of: int32 (N V,), index into `slots`.  to_frame: float32 (N V, 2, 3), view px to frame px,
    a person's views contiguous.  layout: of all frames, which stay on the GPU while this object
    exists.
    """

    def __init__(
        self,
        frames: FramePool,
        images: Sequence[UInt8 | DecodedFrame],
        warps: Sequence[Warp],
        *,
        views: Float64,
    ) -> None:
        self.slots = slots = frames.acquire(images)
        self.layout = slots[0].layout if slots else RGB
        # holds the decoded frames, so that their slots are not released
        self._decoded = [image for image in images if isinstance(image, DecodedFrame)]
        counts = [len(warp) * len(views) for warp in warps]
        self.frame_of = np.repeat(np.arange(len(slots), dtype=np.int32), counts)
        matrices = np.concatenate([np.zeros((0, 2, 3)), *(w.inverse().matrix for w in warps)])
        to_crop = Warp(views).inverse().matrix
        self.to_frame: Float32 = (
            compose(matrices[:, None], to_crop[None]).reshape(-1, 2, 3).astype(np.float32)
        )
        self._views = len(views)
        decoded = [each.slot for each in self._decoded]
        uploaded = [slot for slot in slots if slot not in decoded]
        weakref.finalize(self, frames.release, uploaded).atexit = False

    def __len__(self) -> int:
        return len(self.frame_of) // self._views


class Batch:
    """The GPU memory of a batch of up to `max_persons` persons, reused by all batches.

    Images and heatmaps of the mirrored crops follow those of the crops. A person's views are
    contiguous; peaks: those of all their maps, fused: the maps' weighted mean.
    """

    def __init__(
        self, device: Device, engine: Engine, max_persons: int, *, flip: bool, views: int
    ) -> None:
        images, keypoints = max_persons * views * (1 + flip), engine.heatmaps[0]
        self.launch_table = device.buffer((_table_bytes(max_persons * views),), np.uint8)
        fused = max_persons if views > 1 else 1
        self.peaks = device.buffer((fused * views, keypoints, 3), np.float32)
        self.fused = device.buffer((fused, *engine.heatmaps), np.float32)
        self.images = device.buffer((images, *engine.image), engine.image_dtype)
        self.heatmaps = device.buffer((images, *engine.heatmaps), engine.heatmaps_dtype)
        self.points = device.buffer((max_persons, keypoints, 3), np.float32)


@dataclass(frozen=True)
class LaunchTable:
    """The small inputs of a batch of `count` crops, as arrays within one block of bytes.

    frames: FRAME (count,).  frame_of: int32 (count,).  to_frame: float32 (count, 2, 3).
    """

    frames: Any
    frame_of: Any
    to_frame: Any

    @classmethod
    def on_gpu(cls, block: Buffer, count: int) -> LaunchTable:
        """As views of a buffer."""
        return cls(*(block.view(start, shape, dtype) for start, shape, dtype in _layout(count)))

    @classmethod
    def on_host(cls, block: UInt8, count: int) -> LaunchTable:
        """As views of an array."""
        return cls(
            *(
                np.ndarray(shape, dtype, buffer=block[start:].data)
                for start, shape, dtype in _layout(count)
            )
        )

    def clear(self) -> None:
        """Only empty crops: the kernels then read no frame."""
        self.frames[:] = np.zeros((), FRAME)
        self.frame_of[:], self.to_frame[:] = 0, _OUTSIDE

    def fill(self, request: CropRequest, start: int, stop: int) -> None:
        """Crops `start` to `stop` of a request; the rest of the batch becomes black crops."""
        crops = stop - start
        used, frame_of = np.unique(request.frame_of[start:stop], return_inverse=True)
        rows = [request.slots[n].row for n in used]
        self.frames[: len(rows)] = frame_table(rows, request.layout.format)
        self.frames[len(rows) :] = self.frames[0]
        self.frame_of[:crops], self.frame_of[crops:] = frame_of, 0
        self.to_frame[:crops], self.to_frame[crops:] = request.to_frame[start:stop], _OUTSIDE


class StagingBuffers:
    """The host's pinned memory of one batch in flight: a block to upload, a block to download.

    done: the event after its download.
    """

    def __init__(self, device: Device, spec: ModelSpec, max_persons: int, *, views: int) -> None:
        self.launch_table: UInt8 = device.pinned((_table_bytes(max_persons * views),), np.uint8)
        self.points: Float32 = device.pinned((max_persons, len(spec.skeleton), 3), np.float32)
        self.done: Event = device.event()


def _layout(count: int) -> list[tuple[int, tuple[int, ...], NDArray[Any] | Any]]:
    """Start byte, shape and dtype of frames, frame_of and to_frame; each is aligned."""
    frames = FRAME.itemsize * count
    return [
        (0, (count,), FRAME),
        (frames, (count,), np.dtype(np.int32)),
        (frames + 4 * count, (count, 2, 3), np.dtype(np.float32)),
    ]


def _table_bytes(count: int) -> int:
    return (FRAME.itemsize + 4 + 24) * count
