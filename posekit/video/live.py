"""Cameras and network streams: frames as they come, with reconnection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

from av.container import InputContainer
from av.video.frame import VideoFrame

from posekit.errors import SourceError
from posekit.video.decoding.container import open_input, video_stream
from posekit.video.decoding.convert import Decoded
from posekit.video.decoding.decode import Decoding, use_threads
from posekit.video.decoding.packets import frame_rate, tick_of, timeline_of
from posekit.video.decoding.streams import pixel_aspect, stream_notes
from posekit.video.decoding.survey import Survey
from posekit.video.options import Info, ReadOptions
from posekit.video.sources import Source
from posekit.video.timeline import LiveClock, Place

_UNTIMED = {"mpjpeg", "mjpeg", "h264", "hevc"}  # these carry no times; FFmpeg would invent some
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0


@dataclass
class Live:
    """Decoded frames of an endless source, over as many connections as it takes.

    sleep: waits so many seconds; True when the reader was closed. With `reconnects=0` the first
    break ends the frames, with a note. Iterating raises SourceError after the last try.
    """

    source: Source
    options: ReadOptions
    info: Info
    sleep: Callable[[float], bool]
    clock: LiveClock = field(default_factory=LiveClock)
    survey: Survey = field(default_factory=Survey)
    index: int = 0
    tries: int = 0

    def frames(self, container: InputContainer) -> Iterator[Decoded]:
        """All frames, beginning with those of the open `container`. Raises SourceError."""
        self.info.kind, self.info.frame_count = "live", None
        self.info.found = self._found
        connection: InputContainer | None = container
        while True:
            reason = f"{self.source.name}: the stream ended"
            try:
                with connection or open_input(self.source, self.options) as opened:
                    yield from self._chosen(opened)
            except SourceError as error:
                reason = str(error)
            connection = None
            if self.options.end_s is not None and self.clock.last >= self.options.end_s:
                return
            if not self.index:  # it never gave a frame
                raise SourceError(reason)
            if not self.options.reconnects:
                self.info.notes.append(reason)
                return
            if self._give_up(reason):
                return

    def _found(self) -> list[str]:
        return [f"{self.source.name}: {note}" for note in self.survey.notes()]

    def _give_up(self, reason: str) -> bool:
        """Pause before the next try; True when the reader was closed."""
        self.tries += 1
        if self.tries > self.options.reconnects:
            tries = f"{self.options.reconnects} tries to reconnect"
            raise SourceError(f"{reason}; gave up after {tries}")
        return self.sleep(min(_FIRST_PAUSE_S * 2 ** (self.tries - 1), _LONGEST_PAUSE_S))

    def _chosen(self, container: InputContainer) -> Iterator[Decoded]:
        """What the options select of one connection."""
        for frame, time_s in self._connection(container):
            if self.options.end_s is not None and time_s >= self.options.end_s:
                return
            self.survey.take(frame, Place(self.index, time_s))
            if time_s >= self.options.start_s and self.index % self.options.every == 0:
                yield Decoded(frame, self.index, time_s)
            self.index += 1

    def _connection(self, container: InputContainer) -> Iterator[tuple[VideoFrame, float]]:
        stream = video_stream(container, self.source)
        use_threads(stream, self.options.threads, ahead=False)
        self.info.fps, self.info.pixel_aspect = frame_rate(stream), pixel_aspect(stream)
        self.info.stored_size = (stream.width, stream.height)
        if not self.survey.frames:
            self.survey.announced = self.info.stored_size
        for note in stream_notes(container, stream):
            if (sentence := f"{self.source.name}: {note}") not in self.info.notes:
                self.info.notes.append(sentence)
        self.clock.restart(float(1 / self.info.fps))
        untimed = container.format.name in _UNTIMED
        timeline = timeline_of(container, stream)
        decoding = Decoding(container, stream, self.source, self.options, timeline, live=True)
        for frame in cast("Iterator[VideoFrame]", decoding):  # PyAV's: no GPU decoder was passed
            self.info.reconnected += self.tries > 0
            self.tries = 0
            raw = None if frame.pts is None else float(frame.pts * tick_of(stream))
            yield frame, self.clock.stamp(self.clock.arrival() if untimed else raw)
