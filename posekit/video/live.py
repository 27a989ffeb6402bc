"""Cameras and network streams: pictures as they come, with reconnection."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

from av.container import InputContainer
from av.video.frame import VideoFrame

from posekit.errors import SourceError
from posekit.video.container import open_input, video_stream
from posekit.video.decode import Decoding, Picture, frame_rate, use_threads
from posekit.video.options import Info, ReadOptions
from posekit.video.sources import Source

_GAP_S = 10.0  # a larger step of the stream's own clock is a jump, not a pause
_UNTIMED = {"mpjpeg", "mjpeg", "h264", "hevc"}  # these carry no times; FFmpeg would invent some
_LEAST_S = 1e-3  # between two frames
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0


@dataclass
class _Clock:
    """Times that grow across reconnections and jumps of the stream's clock."""

    step: float = 0.04
    began: float | None = None
    shift: float = 0.0
    raw: float | None = None
    last: float = -1.0

    def stamp(self, raw: float | None) -> float:
        """Seconds since the first picture; `raw` is the stream's own time, None: unknown."""
        next_s = self.last + self.step if self.last >= 0 else 0.0
        if raw is None:
            value = next_s
        else:
            if self.raw is None or not 0 < raw - self.raw <= _GAP_S:
                self.shift = max(self.arrival(), next_s) - raw
            value = raw + self.shift
        self.raw = raw
        self.last = max(value, self.last + _LEAST_S) if self.last >= 0 else value
        return self.last

    def arrival(self) -> float:
        """Seconds of real time since this was first asked."""
        now = time.monotonic()
        if self.began is None:
            self.began = now
        return now - self.began

    def restart(self, step: float) -> None:
        """A new connection: its clock may start anywhere; its frames are about `step` apart."""
        self.raw, self.step = None, step


@dataclass
class Live:
    """Pictures of an endless source, over as many connections as it takes.

    sleep: waits so many seconds; True when nobody listens any longer. With `reconnects=0` the first
    break ends the pictures, with a note. Iterating raises SourceError after the last try.
    """

    source: Source
    options: ReadOptions
    info: Info
    sleep: Callable[[float], bool]
    clock: _Clock = field(default_factory=_Clock)
    index: int = 0
    tries: int = 0

    def pictures(self, container: InputContainer) -> Iterator[Picture]:
        """All pictures, beginning with those of the open `container`."""
        self.info.kind, self.info.frame_count = "live", None
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
            if self.index and not self.options.reconnects:
                self.info.notes.append(reason)
                return
            if self._give_up(reason):
                return

    def _give_up(self, reason: str) -> bool:
        """Pause before the next try; True when nobody listens any longer."""
        self.tries += 1
        if self.tries > self.options.reconnects:
            tries = f"{self.options.reconnects} tries to reconnect"
            raise SourceError(f"{reason}; gave up after {tries}")
        return self.sleep(min(_FIRST_PAUSE_S * 2 ** (self.tries - 1), _LONGEST_PAUSE_S))

    def _chosen(self, container: InputContainer) -> Iterator[Picture]:
        """What the options select of one connection."""
        for frame, time_s in self._connection(container):
            if self.options.end_s is not None and time_s >= self.options.end_s:
                return
            if time_s >= self.options.start_s and self.index % self.options.every == 0:
                yield Picture(frame, self.index, time_s)
            self.index += 1

    def _connection(self, container: InputContainer) -> Iterator[tuple[VideoFrame, float]]:
        stream = video_stream(container, self.source)
        use_threads(stream, self.options.threads, ahead=False)
        self.info.fps = frame_rate(stream)
        self.clock.restart(float(1 / self.info.fps))
        untimed = container.format.name in _UNTIMED
        decoding = Decoding(container, stream, self.source, self.options)
        for frame in cast("Iterator[VideoFrame]", decoding):  # PyAV's: no GPU was handed in
            self.info.reconnected += self.tries > 0
            self.tries = 0
            yield frame, self.clock.stamp(self.clock.arrival() if untimed else frame.time)
