"""Video files as decoded frames, with the numbers and times of the stream's timeline."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction

import av
import av.error
from av.container import InputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from posekit.errors import DeviceError, SourceError
from posekit.video.decoding.container import explain, open_input, video_stream
from posekit.video.decoding.convert import Decoded
from posekit.video.decoding.packets import PacketReader, frame_rate, tick_of, timeline_of
from posekit.video.decoding.scan import EPSILON_S, Start, find_start
from posekit.video.decoding.streams import pixel_aspect, stream_notes
from posekit.video.decoding.surface import OnGpu, Surface, SurfaceDecoders, coded_as
from posekit.video.decoding.survey import Survey
from posekit.video.options import Info, ReadOptions, count_in_window
from posekit.video.sources import Source
from posekit.video.timeline import Place, Stamp, Timeline

_STATES_LENGTH = ("matroska,webm", "flv", "live_flv")  # in seconds, and no number of frames
_ROUNDING_S = 0.1  # of a stated length, and what sound is padded by
_THREADS = 4  # more only take cores from the network


def use_threads(stream: VideoStream, threads: int | None, *, ahead: bool) -> None:
    """Decode with so many threads; `ahead` lets each have a frame of its own (adds delay)."""
    stream.codec_context.thread_count = threads or min(_THREADS, os.cpu_count() or 1)
    stream.thread_type = "AUTO" if ahead else "SLICE"


@dataclass
class Decoding:
    """Pulls decoded frames out of a container and counts what was wrong.

    timeline: of the stream.  live: keep the stream's own times, which `LiveClock` repairs.
    on_gpu: decodes in PyAV's place.
    damaged: so many packets could not be decoded.
    """

    container: InputContainer
    stream: VideoStream
    source: Source
    options: ReadOptions
    timeline: Timeline
    on_gpu: OnGpu | None = None
    live: bool = False
    damaged: int = 0

    def __post_init__(self) -> None:
        self.packets = PacketReader(self.container, self.stream)

    def seek(self, dts: int) -> None:
        """Go on from the key frame at or before this time."""
        self.container.seek(dts, stream=self.stream)
        self.packets.restart()
        if self.on_gpu is not None:
            self.on_gpu.restart()

    def __iter__(self) -> Iterator[VideoFrame | Surface]:
        """Frames in display order. Raises SourceError where reading breaks off."""
        try:
            for packet, stamp in self.packets:
                if packet.size and not self.live:
                    self._enter(packet, stamp)
                yield from self._decode(packet)
        except av.FFmpegError as error:
            yield from self._rest()
            raise SourceError(explain(error, self.source, self.options)) from error

    def _rest(self) -> Sequence[VideoFrame] | Sequence[Surface]:
        """What the decoder still holds; nothing where it cannot be started at all."""
        try:
            return self._decode(None)
        except av.FFmpegError:
            return []

    def _enter(self, packet: av.Packet[VideoStream], stamp: Stamp) -> None:
        stamp = self.timeline.enter(stamp)
        if stamp.pts != packet.pts:
            packet.pts = stamp.pts
        if stamp.dts != packet.dts:
            packet.dts = stamp.dts

    def _decode(
        self, packet: av.Packet[VideoStream] | None
    ) -> Sequence[VideoFrame] | Sequence[Surface]:
        if self.on_gpu is not None:
            return self.on_gpu.decode(packet)
        try:
            return self.stream.decode(packet)
        except av.error.InvalidDataError:
            self.damaged += 1
            self.timeline.fail()
        except av.error.EOFError:  # flushed twice
            pass
        return []


def video_frames(
    container: InputContainer,
    source: Source,
    options: ReadOptions,
    *,
    info: Info,
    decoders: SurfaceDecoders | None = None,
) -> Iterator[Decoded]:
    """The chosen frames of a finite video.

    decoders: of a GPU. What they cannot do, or not to the end, PyAV does, with a note in `info`.
    A file that breaks off gives the frames it has and a note. Raises SourceError.
    """
    given = 0
    start = find_start(source, options)
    if decoders is not None:
        try:
            for decoded in _by_gpu(source, options, info, decoders=decoders, start=start):
                given += 1
                yield decoded
        except (DeviceError, SourceError) as error:
            part = f"after {given} frames " if given else ""
            info.notes.append(f"{source.name}: {part}decoded on the CPU: {error}")
            info.decoder = f"{info.decoder}, then PyAV" if given else "PyAV"
        else:
            return
    stream = video_stream(container, source)
    use_threads(stream, options.threads, ahead=True)
    timeline = timeline_of(container, stream)
    frames = _frames(Decoding(container, stream, source, options, timeline), info, start)
    yield from itertools.islice(frames, given, None)


def _by_gpu(
    source: Source,
    options: ReadOptions,
    info: Info,
    *,
    decoders: SurfaceDecoders,
    start: Start | None,
) -> Iterator[Decoded]:
    """The same by a GPU alone, from a container of its own. Raises DeviceError, SourceError."""
    coded = coded_as(source, options)
    with open_input(source, options) as container:
        stream = video_stream(container, source)
        timeline = timeline_of(container, stream)
        with closing(OnGpu(decoders, coded, stream)) as on_gpu:
            info.decoder = decoders.name
            decoding = Decoding(container, stream, source, options, timeline, on_gpu)
            yield from _frames(decoding, info, start)


def _frames(decoding: Decoding, info: Info, start: Start | None) -> Iterator[Decoded]:
    source, stream, options = decoding.source, decoding.stream, decoding.options
    info.fps, info.pixel_aspect = frame_rate(stream), pixel_aspect(stream)
    info.stored_size = (stream.width, stream.height)
    survey = Survey(info.stored_size)
    total = _frame_total(decoding.container, stream)
    info.frame_count = count_in_window(total, info.fps, options) if total else None
    first, given = None, 0
    try:
        for frame, place in _in_window(decoding, start):
            if first is None:
                first = place.index
                info.start_time_s = float(decoding.timeline.origin * tick_of(stream))
            survey.take(frame, place)
            if (place.index - first) % options.every == 0:
                given += 1
                yield Decoded(frame, place.index, place.time_s)
    except SourceError as error:
        if not given:
            raise
        info.notes.append(f"{error}; it was read up to there")
    else:
        info.notes += _shortfalls(decoding)
    notes = stream_notes(decoding.container, stream) + survey.notes() + decoding.timeline.notes()
    info.notes += [f"{source.name}: {each}" for each in notes]
    if not given:
        raise SourceError(f"{source.name}: no frame in it could be decoded")


def _frame_total(container: InputContainer, stream: VideoStream) -> int:
    """Frames in the whole stream as far as it states them, or 0."""
    rate = frame_rate(stream)
    if stream.duration and stream.time_base:
        expected = stream.duration * stream.time_base * rate
        # AVI counts the empty places of a lower rate
        return stream.frames if 0 < stream.frames < 1.5 * expected else round(expected)
    if stream.frames:
        return stream.frames
    if container.duration:
        return round(Fraction(container.duration, av.time_base) * rate)
    return 0


def _in_window(
    decoding: Decoding, start: Start | None
) -> Iterator[tuple[VideoFrame | Surface, Place]]:
    """Frames of [start_s, end_s) and where they lie."""
    timeline, options = decoding.timeline, decoding.options
    for frame in _from_start(decoding, start):
        if isinstance(frame, VideoFrame):
            b_frame = frame.pict_type == PictureType.B
            place = timeline.leave(frame.pts, bidirectional=b_frame, concealed=frame.is_corrupt)
        else:
            place = timeline.leave(frame.pts)
        if options.end_s is not None and place.time_s >= options.end_s - EPSILON_S:
            return
        if place.time_s >= options.start_s - EPSILON_S:
            yield frame, place


def _from_start(decoding: Decoding, start: Start | None) -> Iterator[VideoFrame | Surface]:
    """Frames from the first one of the window on, where seeking can be trusted, or all."""
    if start is None or not start.seekable:
        yield from decoding
        return
    timeline = decoding.timeline
    timeline.resume(start.before, start.wanted, origin=start.origin)
    decoding.seek(start.key_dts)
    frames = iter(decoding)
    first = next(frames, None)
    if first is None or first.pts is None or first.pts > start.wanted:
        # the file's own index led too far: read it from its beginning
        decoding.seek(start.first_dts)
        frames, first = iter(decoding), None
    for frame in itertools.chain([] if first is None else [first], frames):
        if frame.pts is None or frame.pts >= start.wanted:
            yield frame
        else:
            timeline.skip(frame.pts)


def _shortfalls(decoding: Decoding) -> list[str]:
    """Sentences: the file states more frames than it has, or some were damaged."""
    name, notes = decoding.source.name, []
    whole = not decoding.options.start_s and decoding.options.end_s is None
    if whole and (short := _early_end(decoding)):
        notes.append(f"{name}: the file ends early, {short}")
    if decoding.damaged > decoding.timeline.missing:
        notes.append(f"{name}: {decoding.damaged} damaged pieces were left out")
    return notes


def _early_end(decoding: Decoding) -> str:
    """Half a sentence: where a container states more than it holds; else ""."""
    container, stream, packets = decoding.container, decoding.stream, decoding.packets
    step_s = float(1 / frame_rate(stream))
    if container.format.name in _STATES_LENGTH and container.duration:
        stated_s = container.duration / av.time_base
        if packets.end_s < stated_s - max(2 * step_s, _ROUNDING_S):
            return f"at {packets.end_s:.3f} s of {stated_s:.3f} s"
    elif container.format.name == "avi":
        stated_s = float(stream.frames * tick_of(stream))
        if packets.end_s < stated_s - 2 * step_s:
            return f"at {packets.end_s:.3f} s of {stated_s:.3f} s"
    elif packets.count < stream.frames - 1:
        return f"with {packets.count} of {stream.frames} frames"
    return ""
