"""The packets of one video stream, with the times that their container holds."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from posekit.video.timeline import Stamp, Timeline

_TS_DISCONT = 512  # of av.format.Flags: the container's clock may jump
_RATE_LIMIT = 100_000  # frames a second; more is a container's unit, not a rate
_CHUNK_HEADER = 8  # bytes before an AVI packet's own
_HOLE_BYTES = 1024  # more than headers between two packets; then some could not be read


def frame_rate(stream: VideoStream) -> Fraction:
    """Average frames a second; 30 where the stream does not state it."""
    rates = [rate for rate in (stream.average_rate, stream.guessed_rate) if rate]
    # an average above the rate of the time stamps counts places without a frame (AVI)
    rate = min(rates, default=0)
    return Fraction(rate) if 0 < rate <= _RATE_LIMIT else Fraction(30)


def timeline_of(container: InputContainer, stream: VideoStream) -> Timeline:
    """An empty timeline for the packets of `stream`."""
    return Timeline(
        tick_of(stream),
        frame_rate(stream),
        breaks=bool(container.format.flags & _TS_DISCONT),
        reorders=stream.codec_context.has_b_frames,
    )


def tick_of(stream: VideoStream) -> Fraction:
    """Seconds."""
    return Fraction(stream.time_base or Fraction(1, av.time_base))


class PacketReader:
    """Packets of `stream` in the order of the file, each with its Stamp; an empty one at the end.

    count: packets so far. Other streams are read too, since they show how far the file goes and
    whether bytes are missing.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.count = 0
        self._ends: dict[int, int] = {}  # by stream, in its ticks
        self._container, self._stream = container, stream
        self._avi = container.format.name == "avi"
        entries = list(stream.index_entries) if self._avi else []
        self._places = {entry.pos + _CHUNK_HEADER: entry.timestamp for entry in entries}
        self._holes = "matroska" in container.format.name
        self._position: int | None = None

    def __iter__(self) -> Iterator[tuple[Packet[VideoStream], Stamp]]:
        wanted = self._stream.index
        for packet in self._container.demux():
            hole = self._hole(packet)
            if packet.stream.index == wanted:  # stream_index is 0 in empty packets
                self.count += packet.size > 0
                stamp = self._stamp(packet, hole=hole)
                self._note_end(packet, stamp.pts)
                yield cast("Packet[VideoStream]", packet), stamp
            else:
                self._note_end(packet, packet.pts)

    @property
    def end_s(self) -> float:
        """Where the last packet of any stream ends, seconds."""
        units = {each.index: each.time_base or Fraction(0) for each in self._container.streams}
        return max((float(end * units[index]) for index, end in self._ends.items()), default=0.0)

    def restart(self) -> None:
        """Packets from another place of the file come next."""
        self._position = None

    def _stamp(self, packet: Packet[Stream], *, hole: bool) -> Stamp:
        pts, dts, corrupt = packet.pts, packet.dts, packet.is_corrupt or hole
        if self._avi:
            # AVI holds no times: a packet's is its place in the index, FFmpeg counts packets
            place = self._places.get(packet.pos or -1, dts)
            corrupt = corrupt or place != dts
            pts = dts = place
        shown = not packet.is_discard
        return Stamp(pts, dts, packet.duration or 0, shown=shown, corrupt=corrupt)

    def _hole(self, packet: Packet[Stream]) -> bool:
        """Whether bytes before this packet belong to no packet, if the container has positions."""
        position = packet.pos
        if not self._holes or position is None or not packet.size:
            return False
        before, self._position = self._position, position + packet.size
        return before is not None and position - before > _HOLE_BYTES

    def _note_end(self, packet: Packet[Stream], pts: int | None) -> None:
        stamp = packet.dts if pts is None else pts
        if stamp is not None:
            end, index = stamp + (packet.duration or 0), packet.stream.index
            self._ends[index] = max(end, self._ends.get(index, end))
