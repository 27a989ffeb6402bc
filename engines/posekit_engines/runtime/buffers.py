"""The memory of the GPU runtime: pictures on their way up, and what a batch takes and gives.

Pictures go up on a stream of their own, so that the next ones travel while a batch is computed.
All else of a batch goes through one small pinned block up and one down.
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

_STEP = 1 << 20  # sizes of slots are multiples of this, so that similar pictures share them
_MOST_AHEAD = 16  # pictures that may wait unasked for; the oldest goes when another comes
_NOWHERE = np.array([[0, 0, -2], [0, 0, -2]], np.float32)  # a person outside every picture: black


@dataclass(frozen=True)
class Layout:
    """What the pixels of a picture on the GPU are.  color: how NV12 becomes RGB."""

    format: Format = "rgb"
    color: ColorMatrix = BT709

    @classmethod
    def of(cls, coded: Coded) -> Layout:
        """Of the pictures of a video."""
        red, blue = (0.2126, 0.0722) if coded.bt709 else (0.299, 0.114)
        return cls("nv12", ColorMatrix.of(red, blue, full_range=coded.full_range))


RGB = Layout()


class Slot:
    """Room for one picture, on the host and on the GPU."""

    def __init__(self, device: Device, size: int) -> None:
        self.size = size
        self.pinned: UInt8 = device.pinned((size,), np.uint8)
        self.buffer: Buffer = device.buffer((size,), np.uint8)
        self.uploaded, self.read = device.event(), device.event()
        self.shape: tuple[int, ...] = (0, 0, 3)  # (H, W) of NV12
        self.layout = RGB

    @property
    def row(self) -> tuple[int, int, int, int]:
        """Address, width, height and bytes from row to row, for `ops.frame_table`."""
        height, width, *channels = self.shape
        return self.buffer.address, width, height, width * int(np.prod(channels))


class Decoded:
    """A picture that was decoded on the GPU, in a slot of its own: a `posekit.video.Surface`."""

    def __init__(self, pictures: FramePool, slot: Slot, coded: Coded, *, pts: int) -> None:
        self.slot, self.coded, self.pts = slot, coded, pts
        self._pictures = pictures
        weakref.finalize(self, pictures.give_back, [slot]).atexit = False

    def nv12(self) -> UInt8:
        """A copy on the host, (H 3 / 2, W). Raises DeviceError."""
        width, height = self.coded.size
        return self._pictures.fetched(self.slot, (height * 3 // 2, width))


class FramePool:
    """Pictures on the GPU: RGB, uploaded once each, on a stream of their own; or decoded there."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.stream: Stream = device.stream()
        self._free: list[Slot] = []
        # Waiting pictures are held, so that their ids stay theirs.
        self._ahead: collections.OrderedDict[int, tuple[UInt8, Slot]] = collections.OrderedDict()
        self._lock = threading.RLock()

    def ahead(self, images: Sequence[UInt8 | Decoded]) -> None:
        """Start uploading pictures that will be asked for. They must not change until then."""
        with self._lock:
            for image in images:
                if isinstance(image, Decoded) or id(image) in self._ahead:
                    continue
                if len(self._ahead) >= _MOST_AHEAD:
                    self.give_back([self._ahead.popitem(last=False)[1][1]])
                self._ahead[id(image)] = (image, self._upload(image))

    def take(self, images: Sequence[UInt8 | Decoded]) -> list[Slot]:
        """Their slots, uploaded or on the way. Raises DeviceError."""
        with self._lock:
            return [
                image.slot if isinstance(image, Decoded) else self._at(image) for image in images
            ]

    def _at(self, image: UInt8) -> Slot:
        return self._ahead.pop(id(image))[1] if id(image) in self._ahead else self._upload(image)

    def copied(self, planes: Sequence[tuple[int, int]], coded: Coded, stream: Stream) -> Slot:
        """A slot with a decoded picture, on its way: addresses and bytes of luma and chroma.

        They are read in the order of `stream`, on which they were made. Raises DeviceError.
        """
        slot = self._slot(sum(size for _, size in planes))
        slot.shape, slot.layout = coded.size[::-1], Layout.of(coded)
        stream.wait(slot.read)  # the batch before has read what lay there
        start = 0
        for address, part in planes:
            slot.buffer.copy(start, address, part, stream=stream)
            start += part
        slot.uploaded.record(stream)
        return slot

    def fetched(self, slot: Slot, shape: tuple[int, ...]) -> UInt8:
        """The first bytes of a slot, on the host. Raises DeviceError."""
        size = int(np.prod(shape))
        self.stream.wait(slot.uploaded)
        slot.buffer.download(slot.pinned[:size], self.stream)
        self.stream.finish()
        return slot.pinned[:size].reshape(shape).copy()

    def drop(self, image: UInt8 | Decoded) -> None:
        """Nobody will ask for this picture after all."""
        with self._lock:
            if id(image) in self._ahead:
                self.give_back([self._ahead.pop(id(image))[1]])

    def give_back(self, slots: Sequence[Slot]) -> None:
        """Nobody will launch anything more that reads them."""
        with self._lock:
            self._free.extend(slots)

    def _upload(self, image: UInt8) -> Slot:
        slot = self._slot(image.nbytes)
        slot.uploaded.reach()  # the pinned bytes: the upload before has left them
        slot.shape, slot.layout = image.shape, RGB
        pinned = slot.pinned[: image.nbytes]
        np.copyto(pinned.reshape(image.shape), image)
        self.stream.wait(slot.read)  # the GPU's bytes: the batch before has read them
        slot.buffer.upload(pinned, self.stream)
        slot.uploaded.record(self.stream)
        return slot

    def _slot(self, size: int) -> Slot:
        """The one that has been free for the longest, or a new one in place of one too small."""
        with self._lock:
            for n, slot in enumerate(self._free):
                if slot.size >= size:
                    return self._free.pop(n)
            if self._free:
                del self._free[0]
        return Slot(self._device, -(-size // _STEP) * _STEP)


class CropRequest:
    """N persons to be cut out of pictures that are on the GPU or on their way there.

    views: (V, 2, 3), crop px to each view's px; one that changes nothing is the crop itself.
    frame_of: int32 (N V,), which of `slots`.  to_frame: float32 (N V, 2, 3), view px to frame px,
    a person's views one after another.  layout: of all pictures, which stay on the GPU for as long
    as this is held.
    """

    def __init__(
        self,
        pictures: FramePool,
        images: Sequence[UInt8 | Decoded],
        warps: Sequence[Warp],
        *,
        views: Float64,
    ) -> None:
        self.slots = slots = pictures.take(images)
        self.layout = slots[0].layout if slots else RGB
        self._held = [image for image in images if isinstance(image, Decoded)]
        counts = [len(warp) * len(views) for warp in warps]
        self.frame_of = np.repeat(np.arange(len(slots), dtype=np.int32), counts)
        matrices = np.concatenate([np.zeros((0, 2, 3)), *(w.inverse().matrix for w in warps)])
        to_crop = Warp(views).inverse().matrix
        self.to_frame: Float32 = (
            compose(matrices[:, None], to_crop[None]).reshape(-1, 2, 3).astype(np.float32)
        )
        self._views = len(views)
        lent = [each.slot for each in self._held]
        uploaded = [slot for slot in slots if slot not in lent]
        weakref.finalize(self, pictures.give_back, uploaded).atexit = False

    def __len__(self) -> int:
        return len(self.frame_of) // self._views


class Batch:
    """What is on the GPU of a batch of up to `most` persons: it is used by one after another.

    The images and heatmaps of the persons come first, those of their mirrors behind them. With
    several views a person's stand together; found: the peaks of all their maps, fused: their mean.
    """

    def __init__(
        self, device: Device, engine: Engine, most: int, *, flip: bool, views: int
    ) -> None:
        images, keypoints = most * views * (1 + flip), engine.heatmaps[0]
        self.control = device.buffer((_control_bytes(most * views),), np.uint8)
        fused = most if views > 1 else 1
        self.found = device.buffer((fused * views, keypoints, 3), np.float32)
        self.fused = device.buffer((fused, *engine.heatmaps), np.float32)
        self.images = device.buffer((images, *engine.image), engine.image_dtype)
        self.heatmaps = device.buffer((images, *engine.heatmaps), engine.heatmaps_dtype)
        self.points = device.buffer((most, keypoints, 3), np.float32)


@dataclass(frozen=True)
class LaunchTable:
    """Where the small things of a batch of `count` crops lie in a block of bytes.

    table: FRAME (count,).  frame_of: int32 (count,).  to_frame: float32 (count, 2, 3).
    """

    table: Any
    frame_of: Any
    to_frame: Any

    @classmethod
    def on_gpu(cls, block: Buffer, count: int) -> LaunchTable:
        """As parts of a buffer."""
        return cls(*(block.part(start, shape, dtype) for start, shape, dtype in _layout(count)))

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
        """Nobody at all: the kernels then read no picture."""
        self.table[:] = np.zeros((), FRAME)
        self.frame_of[:], self.to_frame[:] = 0, _NOWHERE

    def fill(self, cut: CropRequest, start: int, stop: int) -> None:
        """Crops `start` to `stop` of a cut; what is left of the block is nobody, and black."""
        crops = stop - start
        used, frame_of = np.unique(cut.frame_of[start:stop], return_inverse=True)
        rows = [cut.slots[n].row for n in used]
        self.table[: len(rows)] = frame_table(rows, cut.layout.format)
        self.table[len(rows) :] = self.table[0]
        self.frame_of[:crops], self.frame_of[crops:] = frame_of, 0
        self.to_frame[:crops], self.to_frame[crops:] = cut.to_frame[start:stop], _NOWHERE


class StagingBuffers:
    """The host's side of one batch on its way: a pinned block up, a pinned block down."""

    def __init__(self, device: Device, spec: ModelSpec, most: int, *, views: int) -> None:
        self.control: UInt8 = device.pinned((_control_bytes(most * views),), np.uint8)
        self.points: Float32 = device.pinned((most, len(spec.skeleton), 3), np.float32)
        self.done: Event = device.event()


def _layout(count: int) -> list[tuple[int, tuple[int, ...], NDArray[Any] | Any]]:
    """Start, shape and dtype of the table, frame_of and to_frame; each aligned to its numbers."""
    table = FRAME.itemsize * count
    return [
        (0, (count,), FRAME),
        (table, (count,), np.dtype(np.int32)),
        (table + 4 * count, (count, 2, 3), np.dtype(np.float32)),
    ]


def _control_bytes(most: int) -> int:
    return (FRAME.itemsize + 4 + 24) * most
