"""Video files as frames: upright, RGB, with the times that the file gives."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
import av.error
import cv2
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from posekit.errors import DeviceError, SourceError
from posekit.types import Frame, UInt8
from posekit.video.container import explain, open_input, video_stream
from posekit.video.options import Info, ReadOptions, count_in_window
from posekit.video.pool import Pool
from posekit.video.sources import Source
from posekit.video.surface import OnGpu, Surface, SurfaceDecoders, SurfaceFrame, coded_as

Matrix = NDArray[np.int32]  # nine integers
_EPSILON_S = 1e-6  # times are fractions in the file and floats on the command line
_THREADS = 4  # more only take cores from the network
_STEP_S = 1e-3  # least distance of two frames where a file's times do not grow


@dataclass(frozen=True)
class Picture:
    """A decoded picture in the codec's own format; `Converter` makes a Frame of it."""

    frame: VideoFrame | Surface
    index: int
    time_s: float


class Converter:
    """Pictures to frames: RGB as FFmpeg converts it (the stream's matrix and range), upright."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        # by rotation, since asking a frame for its side data keeps its memory from the decoder
        self._matrices: dict[int, Matrix | None] = {}

    def __call__(self, picture: Picture) -> Frame:
        """A Frame whose image is contiguous and of its own, or stays on the GPU."""
        if not isinstance(picture.frame, VideoFrame):
            return SurfaceFrame(picture.frame, picture.index, picture.time_s)
        image = picture.frame.to_ndarray(format="rgb24").view(np.uint8)
        matrix = self._matrix(picture.frame)
        if matrix is not None:
            image = upright(image, matrix)
        return Frame(self._pool.copy(image), picture.index, picture.time_s)

    def _matrix(self, frame: VideoFrame) -> Matrix | None:
        if frame.rotation not in self._matrices:
            data = frame.side_data.get("DISPLAYMATRIX")
            self._matrices[frame.rotation] = (
                None if data is None else np.frombuffer(bytes(cast("SideData", data)), np.int32)
            )
        return self._matrices[frame.rotation]


def upright(image: UInt8, matrix: Matrix) -> UInt8:
    """`image` (H, W, 3) shown as a display matrix (9 integers) says: quarter turns and mirrors.

    The matrix takes a stored (p, q) to a shown (a p + c q, b p + d q); other angles are ignored.
    """
    a, b, c, d = (int(matrix[k]) for k in (0, 1, 3, 4))
    shown: cv2.typing.MatLike = image
    if abs(b) > abs(a):
        shown, a, d = cv2.transpose(image), c, b
    if a < 0 or d < 0:
        shown = cv2.flip(shown, -1 if a < 0 and d < 0 else (1 if a < 0 else 0))
    return np.asarray(shown, np.uint8)


def use_threads(stream: VideoStream, threads: int | None, *, ahead: bool) -> None:
    """Decode with so many threads; `ahead` lets each have a frame of its own (adds delay)."""
    stream.codec_context.thread_count = threads or min(_THREADS, os.cpu_count() or 1)
    stream.thread_type = "AUTO" if ahead else "SLICE"


@dataclass
class Decoding:
    """Pulls pictures out of a container and counts what was wrong.

    on_gpu: decodes in PyAV's place.
    packets: so many were read.  damaged: so many could not be decoded and were left out.
    """

    container: InputContainer
    stream: VideoStream
    source: Source
    options: ReadOptions
    on_gpu: OnGpu | None = None
    packets: int = 0
    damaged: int = 0

    def seek(self, dts: int) -> None:
        """Go on from the key frame at or before this time."""
        self.container.seek(dts, stream=self.stream)
        if self.on_gpu is not None:
            self.on_gpu.restart()

    def __iter__(self) -> Iterator[VideoFrame | Surface]:
        """Pictures in the order of time. Raises SourceError where reading breaks off."""
        demuxed = self.container.demux(self.stream)
        try:
            for packet in demuxed:
                self.packets += packet.size > 0
                yield from self._decode(packet)
        except av.FFmpegError as error:
            yield from self._decode(None)  # what the decoder still holds
            raise SourceError(explain(error, self.source, self.options)) from error

    def _decode(
        self, packet: av.Packet[VideoStream] | None
    ) -> Sequence[VideoFrame] | Sequence[Surface]:
        if self.on_gpu is not None:
            return self.on_gpu.decode(packet)
        try:
            return self.stream.decode(packet)
        except av.error.InvalidDataError:
            self.damaged += 1
        except av.error.EOFError:  # flushed twice
            pass
        return []


def video_pictures(
    container: InputContainer,
    source: Source,
    options: ReadOptions,
    *,
    info: Info,
    decoders: SurfaceDecoders | None = None,
) -> Iterator[Picture]:
    """The chosen pictures of a finite video.

    decoders: of a GPU. What they cannot do, or not to the end, PyAV does, with a note in `info`.
    A file that breaks off gives the pictures it has and a note. Raises SourceError.
    """
    given = 0
    if decoders is not None:
        try:
            for picture in _by_gpu(source, options, info, decoders=decoders):
                given += 1
                yield picture
        except (DeviceError, SourceError) as error:
            part = f"after {given} pictures " if given else ""
            info.notes.append(f"{source.name}: {part}decoded on the CPU: {error}")
            info.decoder = f"{info.decoder}, then PyAV" if given else "PyAV"
        else:
            return
    stream = video_stream(container, source)
    use_threads(stream, options.threads, ahead=True)
    pictures = _pictures(Decoding(container, stream, source, options), info)
    yield from itertools.islice(pictures, given, None)


def _by_gpu(
    source: Source, options: ReadOptions, info: Info, *, decoders: SurfaceDecoders
) -> Iterator[Picture]:
    """The same by a GPU alone, from a container of its own. Raises DeviceError, SourceError."""
    coded = coded_as(source, options)
    with open_input(source, options) as container:
        stream = video_stream(container, source)
        with closing(OnGpu(decoders, coded, stream)) as on_gpu:
            info.decoder = decoders.name
            yield from _pictures(Decoding(container, stream, source, options, on_gpu), info)


def _pictures(decoding: Decoding, info: Info) -> Iterator[Picture]:
    source, stream, options = decoding.source, decoding.stream, decoding.options
    info.fps = frame_rate(stream)
    total = _frame_total(decoding.container, stream)
    info.frame_count = count_in_window(total, info.fps, options) if total else None
    first, frames = _from_start(decoding)
    given = 0
    try:
        for number, (frame, time_s) in enumerate(_in_window(frames, stream, options)):
            if number % options.every == 0:
                given += 1
                yield Picture(frame, first + number, time_s)
    except SourceError as error:
        if not given:
            raise
        info.notes.append(f"{error}; it was read up to there")
    else:
        info.notes += _shortfalls(decoding)
    if not given:
        raise SourceError(f"{source.name}: no picture in it could be decoded")


def frame_rate(stream: VideoStream) -> Fraction:
    """Average frames a second; 30 where the stream does not say."""
    rate = stream.average_rate or stream.guessed_rate
    return Fraction(rate) if rate and 0 < rate <= 1000 else Fraction(30)


def _frame_total(container: InputContainer, stream: VideoStream) -> int:
    """Frames in the whole stream as far as it tells, or 0."""
    if stream.frames:
        return stream.frames
    if stream.duration and stream.time_base:
        return round(stream.duration * stream.time_base * frame_rate(stream))
    if container.duration:
        return round(Fraction(container.duration, av.time_base) * frame_rate(stream))
    return 0


def _in_window(
    frames: Iterator[VideoFrame | Surface], stream: VideoStream, options: ReadOptions
) -> Iterator[tuple[VideoFrame | Surface, float]]:
    """Frames of [start_s, end_s) with times that grow, counted from the stream's start."""
    step = float(1 / frame_rate(stream))
    origin = stream.start_time
    last = -step
    for frame in frames:
        if origin is None:
            origin = frame.pts
        if frame.pts is None or origin is None or stream.time_base is None:
            time_s = last + step
        else:
            time_s = float((frame.pts - origin) * stream.time_base)
        if options.end_s is not None and time_s >= options.end_s - _EPSILON_S:
            return
        if time_s >= options.start_s - _EPSILON_S:
            time_s = max(time_s, last + _STEP_S)
            yield frame, time_s
        last = time_s


def _from_start(decoding: Decoding) -> tuple[int, Iterator[VideoFrame | Surface]]:
    """Position of the first frame at or after start_s, and frames from a little before it.

    The position is exact also where the frame rate varies: packets are counted, not decoded.
    """
    stream, start_s = decoding.stream, decoding.options.start_s
    if not start_s:
        return 0, iter(decoding)
    target = (stream.start_time or 0) + (Fraction(start_s) - Fraction(_EPSILON_S)) / _base(stream)
    place = _find(decoding, target)
    if place.wanted is None:
        raise SourceError(f"{decoding.source.name}: it ends before the start, {start_s:g} s")
    decoding.seek(place.key_dts)
    frames = iter(decoding)
    first = next(frames, None)
    if first is not None and first.pts is not None and first.pts <= place.wanted:
        return place.before, itertools.chain([first], frames)
    # the file's own index led too far: read it from its beginning
    decoding.seek(place.first_dts)
    return place.before, iter(decoding)


@dataclass
class _Place:
    """Where a time lies in a stream, in its own units.

    before: frames shown earlier.  wanted: time stamp of the first frame that is not.
    key_dts, first_dts: decoding times of the last key frame before it and of the first packet;
    seeking goes by decoding times in some containers, and is safe with them in all.
    """

    before: int = 0
    wanted: int | None = None
    key_dts: int = 0
    first_dts: int = 0


def _find(decoding: Decoding, target: Fraction) -> _Place:
    place = _Place()
    for packet in decoding.container.demux(decoding.stream):
        pts = packet.dts if packet.pts is None else packet.pts
        dts = packet.pts if packet.dts is None else packet.dts
        if pts is None or dts is None or packet.is_discard:
            continue
        if place.wanted is not None and dts > place.wanted:
            break  # no later packet is shown earlier than it is decoded
        if not place.before and place.wanted is None:
            place.first_dts = place.key_dts = dts
        if pts >= target:
            place.wanted = pts if place.wanted is None else min(place.wanted, pts)
        else:
            place.before += 1
            place.key_dts = dts if packet.is_keyframe else place.key_dts
    return place


def _base(stream: VideoStream) -> Fraction:
    return Fraction(stream.time_base or Fraction(1, av.time_base))


def _shortfalls(decoding: Decoding) -> list[str]:
    """Sentences: the file promises more frames than it has, or some were damaged."""
    name, promised, notes = decoding.source.name, decoding.stream.frames, []
    whole = not decoding.options.start_s and decoding.options.end_s is None
    if whole and decoding.packets < promised - 1:
        notes.append(f"{name}: the file ends early, with {decoding.packets} of {promised} frames")
    if decoding.damaged:
        notes.append(f"{name}: {decoding.damaged} damaged pieces were left out")
    return notes
