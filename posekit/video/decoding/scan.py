"""What a pass over a video's packets finds without decoding any: where a window begins."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import av

from posekit.errors import SourceError
from posekit.video.decoding.container import explain, open_input, video_stream
from posekit.video.decoding.packets import PacketReader, timeline_of
from posekit.video.options import ReadOptions
from posekit.video.sources import Source
from posekit.video.timeline import Stamp, Timeline

EPSILON_S = 1e-6  # times are fractions in the file and floats on the command line


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
            for packet, stamp in PacketReader(container, stream):
                if packet.size and not scan.take(stamp, key=packet.is_keyframe):
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

    def take(self, stamp: Stamp, *, key: bool) -> bool:
        """Note a packet's times; False once no later packet is shown before the window."""
        stamp = self.timeline.enter(stamp)
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
        if key or len(self.pts) == 1:
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
