"""What a pass over a video's packets finds without decoding any: where a window begins."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from posekit.errors import SourceError
from posekit.video.container import explain, open_input, video_stream
from posekit.video.options import ReadOptions
from posekit.video.sources import Source
from posekit.video.timeline import Stamp, Timeline

EPSILON_S = 1e-6  # times are fractions in the file and floats on the command line
_TS_DISCONT = 512  # of av.format.Flags: the container's clock may jump
_NO_PTS = ("avi",)  # these hold decoding times only; FFmpeg invents the others
_RATE_LIMIT = 100_000  # frames a second; more is a container's unit, not a rate


def frame_rate(stream: VideoStream) -> Fraction:
    """Average frames a second; 30 where the stream does not say."""
    rates = [rate for rate in (stream.average_rate, stream.guessed_rate) if rate]
    # an average above the rate of the time stamps counts places without a frame (AVI)
    rate = min(rates, default=0)
    return Fraction(rate) if 0 < rate <= _RATE_LIMIT else Fraction(30)


def timeline_of(container: InputContainer, stream: VideoStream) -> Timeline:
    """An empty timeline for the packets of `stream`."""
    return Timeline(
        Fraction(stream.time_base or Fraction(1, av.time_base)),
        frame_rate(stream),
        breaks=bool(container.format.flags & _TS_DISCONT),
        reorders=stream.codec_context.has_b_frames,
    )


def stamp_of(packet: Packet[VideoStream], container: InputContainer) -> Stamp:
    """The times of a packet as its container holds them."""
    pts = packet.dts if container.format.name in _NO_PTS else packet.pts
    return Stamp(
        pts,
        packet.dts,
        packet.duration or 0,
        shown=not packet.is_discard,
        corrupt=packet.is_corrupt,
    )


@dataclass(frozen=True)
class Start:
    """Where a window begins in a stream, in its ticks.

    before: frames shown earlier.  origin: time stamp of the stream's first frame.
    wanted: of the first frame in the window.  key_dts, first_dts: decoding times of the last key
    frame before it and of the first packet; seeking goes by decoding times in some containers,
    and is safe with them in all.  seekable: decoding from the key frame finds the same frames.
    """

    before: int
    origin: int
    wanted: int
    key_dts: int
    first_dts: int
    seekable: bool


def find_start(source: Source, options: ReadOptions) -> Start | None:
    """Where the window of `options` begins; None where it is the whole video's beginning.

    The number of frames before is exact also where the frame rate varies: packets are counted.
    Raises SourceError.
    """
    if not options.start_s:
        return None
    with open_input(source, options) as container:
        stream = video_stream(container, source)
        scan = _Scan(timeline_of(container, stream), options.start_s - EPSILON_S)
        try:
            for packet in container.demux(stream):
                if packet.size and not scan.take(packet, container):
                    break
        except av.FFmpegError as error:
            if not scan.pts:
                raise SourceError(explain(error, source, options)) from error
    return scan.start(source, options)


class _Scan:
    """Time stamps of a stream's packets up to the window."""

    def __init__(self, timeline: Timeline, start_s: float) -> None:
        self.timeline, self.start_s = timeline, start_s
        self.pts = array("q")
        self.keys: list[tuple[int, int]] = []
        self.timed = True
        self._wanted: int | None = None

    def take(self, packet: Packet[VideoStream], container: InputContainer) -> bool:
        """Note a packet's times; False once no later packet is shown before the window."""
        stamp = self.timeline.enter(stamp_of(packet, container))
        pts = stamp.dts if stamp.pts is None else stamp.pts
        if pts is None:
            self.timed = False
            return True
        dts = pts if stamp.dts is None else stamp.dts
        if not stamp.shown:
            return True
        if self._wanted is not None and dts > self._wanted:
            return False  # no later packet is shown earlier than it is decoded
        self.pts.append(pts)
        if packet.is_keyframe or len(self.pts) == 1:
            self.keys.append((pts, dts))
        if self.timeline.time_of(pts) >= self.start_s:
            self._wanted = pts if self._wanted is None else min(pts, self._wanted)
        return True

    def start(self, source: Source, options: ReadOptions) -> Start | None:
        """What was found. Raises SourceError: the stream ends before the window."""
        if not self.timed:
            return Start(0, 0, 0, 0, 0, seekable=False)
        late = [pts for pts in self.pts if self.timeline.time_of(pts) >= self.start_s]
        if not late:
            raise SourceError(f"{source.name}: it ends before the start, {options.start_s:g} s")
        wanted, first = min(late), self.keys[0][1]
        before = [dts for pts, dts in self.keys if pts < wanted]
        return Start(
            before=len(self.pts) - len(late),
            origin=self.timeline.origin,
            wanted=wanted,
            key_dts=max(before, default=first),
            first_dts=first,
            seekable=self.timeline.seekable,
        )
