"""The one place that orders, repairs and numbers the times of a stream.

Packets enter in decoding order, frames leave in display order. Every user of a time or a frame
number (window, tracker, smoother, overlay, outputs) takes it from here, by way of Frame.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

JUMP_S = 10.0  # a larger step ahead of a clock that may break is a jump, not a pause
_REORDER = 16  # frames that H.264 and HEVC reorder at most
_UNEVEN = 0.3  # of a step: the most that frames of a constant rate lie off (rounded time stamps)
_LISTED = 5  # places that a note names
_LEAST_S = 1e-6  # between two frames of a live source

Ticks = int | Fraction


class Stamp(NamedTuple):
    """The times of one packet, in ticks of its stream; None where the container has none.

    shown: False where the packet is decoded and not displayed (an edit list).
    corrupt: the container found it damaged.
    """

    pts: int | None
    dts: int | None
    duration: int = 0
    shown: bool = True
    corrupt: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a frame lies.  index: in the video, from 0.  time_s: from its start, seconds."""

    index: int
    time_s: float


@dataclass
class Clock:
    """One continuous clock out of one that restarts or jumps; all in ticks.

    step: of a frame.  jump: a larger step ahead is not a pause; None: every step ahead is kept.
    A decoding time that steps back by more than a frame begins a new piece, which goes on where
    the last packet ended.  restarts: first time stamps of new pieces, on the continuous clock.
    """

    step: int
    jump: int | None = None
    shift: int = 0
    restarts: list[int] = field(default_factory=list)
    _dts: int | None = None
    _pts: int | None = None
    _end: int = 0

    def repair(self, stamp: Stamp) -> Stamp:
        """The same packet on the continuous clock; itself where nothing is wrong."""
        dts, pts = self._moved(stamp.dts), self._moved(stamp.pts)
        new, last, room = dts, self._dts, self.step
        if new is None or last is None:  # presentation times alone: a few frames out of order
            new, last, room = pts, self._pts, self.step * _REORDER
        if new is not None and last is not None and self._breaks(new - last, room):
            self.shift += self._end - new
            dts, pts = self._moved(stamp.dts), self._moved(stamp.pts)
            self.restarts.append(self._end if pts is None else pts)
            self._dts = self._pts = None
        self._keep(dts, pts, stamp.duration or self.step)
        if not self.shift:
            return stamp
        return Stamp(pts, dts, stamp.duration, stamp.shown, stamp.corrupt)

    def _breaks(self, distance: int, room: int) -> bool:
        return distance < -room or (self.jump is not None and distance > self.jump)

    def _moved(self, ticks: int | None) -> int | None:
        return None if ticks is None else ticks + self.shift

    def _keep(self, dts: int | None, pts: int | None, duration: int) -> None:
        if dts is not None:
            self._dts = dts if self._dts is None else max(dts, self._dts)
        if pts is not None:
            self._pts = pts if self._pts is None else max(pts, self._pts)
        newest = self._pts if dts is None else self._dts
        self._end = self._end if newest is None else newest + duration


class Timeline:
    """Numbers and times of the frames of one stream, always growing; keeps what it repaired.

    base_s: a tick, seconds.  rate: nominal frames a second.  breaks: the container's clock may
    jump (MPEG-TS, MPEG-PS).  reorders: the codec shows frames in another order than it stores.
    lost: the first of so many frames that were left out.  restarts: first frames after a break of
    the clock.  moved: frames whose time lay before the frame ahead of them.  ordered: frames that
    got their times by order, since the container holds decoding times only.  concealed: frames
    made from damaged data.
    """

    def __init__(
        self, base_s: Fraction, rate: Fraction, *, breaks: bool = False, reorders: bool = False
    ) -> None:
        self.base_s, self._exact = base_s, 1 / (rate * base_s)
        self._step, self._base = float(self._exact), float(base_s)
        self._reorders = reorders
        step = max(1, round(self._exact))
        jump = max(2 * step, round(Fraction(JUMP_S) / base_s))
        self._clock = Clock(step, jump if breaks else None)
        self.lost: list[tuple[Place, int]] = []
        self.restarts: list[Place] = []
        self.moved: list[Place] = []
        self.concealed: list[Place] = []
        self.ordered = 0
        self._waiting: list[int] = []  # time stamps of packets whose frame is to come
        self._flat = True  # so far they grew in decoding order
        self._newest: int | None = None
        self._origin: Ticks | None = None
        self._floor: Ticks = -(1 << 63)  # frames before it have no number
        self._last: Ticks | None = None  # of the last frame
        self._next = 0
        self._damage = 0  # packets that failed and that no missing frame accounts for yet
        self._suspects: list[int] = []  # stamps of packets before which some may be missing
        self._failed = 0
        self._steady: bool | None = None  # whether the rate is constant so far
        self._breaks: list[int] = []  # first time stamps of pieces whose frame is to come

    @property
    def missing(self) -> int:
        """How many frames damage has cost."""
        return sum(count for _, count in self.lost)

    @property
    def origin(self) -> int:
        """Ticks of the stream's own clock where `time_s` is 0."""
        return int(self._origin or 0)

    @property
    def seekable(self) -> bool:
        """Whether decoding may begin in the middle and finds the same times and numbers."""
        return not (self._clock.restarts or self._suspects or (self._flat and self._reorders))

    def time_of(self, ticks: Ticks) -> float:
        """Seconds from the start of the stream."""
        return float(ticks - (self._origin or 0)) * self._base

    def enter(self, stamp: Stamp) -> Stamp:
        """Take the next packet, in decoding order; returns its times on the continuous clock."""
        known = len(self._clock.restarts)
        stamp = self._clock.repair(stamp)
        self._breaks += self._clock.restarts[known:]
        pts = stamp.dts if stamp.pts is None else stamp.pts
        if pts is None or not stamp.shown:
            return stamp
        if stamp.corrupt:
            self._suspects.append(pts)
        if self._newest is not None and pts < self._newest:
            self._flat = False
        self._newest = pts if self._newest is None else max(pts, self._newest)
        if self._last is None and self._next == 0:
            self._origin = pts if self._origin is None else min(pts, self._origin)
        heapq.heappush(self._waiting, pts)
        return stamp

    def fail(self) -> None:
        """A packet could not be decoded: its frame is missing among those that come."""
        self._damage += 1
        self._failed += 1

    def resume(self, index: int, pts: int, *, origin: int) -> None:
        """Packets from a key frame before `pts` come next; the frame of `pts` is number `index`.

        Frames before it are passed to `skip`. `origin`: of the stream, since its start is not read.
        """
        self._origin, self._next, self._floor = origin, index, pts

    def skip(self, pts: int) -> None:
        """A frame before the window came, which gets no number."""
        self._ticks(pts, by_order=False)

    def leave(
        self, pts: int | None, *, bidirectional: bool = False, concealed: bool = False
    ) -> Place:
        """The place of the next frame in display order.

        pts: its time stamp on the continuous clock.  bidirectional: it is a B-frame.
        concealed: its decoder filled in what was damaged.
        """
        ticks, passed = self._ticks(pts, by_order=self._by_order(bidirectional))
        if self._origin is None:
            self._origin = ticks
        missing = self._missing(ticks, len(passed))
        if missing:
            began = min(passed) if passed else (self._last or 0) + self._exact
            self.lost.append((Place(self._next, self.time_of(began)), missing))
            self._next += missing
        place = Place(self._next, self.time_of(ticks))
        while self._breaks and self._breaks[0] <= ticks:
            self.restarts.append(place)
            self._breaks.pop(0)
        if concealed:
            self.concealed.append(place)
        self._last, self._next = ticks, self._next + 1
        return place

    def _by_order(self, bidirectional: bool) -> bool:
        """Whether the stamps are decoding times: they only grow, and B-frames are shown."""
        reordered = self._reorders and (bidirectional or self.ordered > 0)
        return self._flat and reordered and len(self._waiting) > 0

    def _ticks(self, pts: int | None, *, by_order: bool) -> tuple[Ticks, list[int]]:
        """When the next frame is shown, and the stamps of packets without a frame before it."""
        passed: list[int] = []
        if by_order:
            # what was stored before a hole is shown before what was stored after it
            gone = max((each for each in self._suspects if each <= (pts or 0)), default=0)
            while len(self._waiting) > 1 and (self._failed > 0 or self._waiting[0] < gone):
                self._failed -= self._waiting[0] >= gone
                passed.append(heapq.heappop(self._waiting))
            first = heapq.heappop(self._waiting)
            self.ordered += pts != first
            return self._after_last(first), passed
        if pts is None:
            guess = 0 if self._last is None else self._last + self._exact
            return self._after_last(
                heapq.heappop(self._waiting) if self._waiting else guess
            ), passed
        while self._waiting and self._waiting[0] <= pts:
            first = heapq.heappop(self._waiting)
            if self._floor <= first < pts:
                passed.append(first)
        return self._after_last(pts), passed

    def _after_last(self, ticks: Ticks) -> Ticks:
        """`ticks` where they come after the last frame, else a frame later, before the next one."""
        last = self._last
        if last is None or ticks > last:
            return ticks
        ticks = last + self._exact
        if self._waiting and last < self._waiting[0] <= ticks:
            ticks = Fraction(last + self._waiting[0]) / 2
        self.moved.append(Place(self._next, self.time_of(ticks)))
        return ticks

    def _missing(self, ticks: Ticks, passed: int) -> int:
        """How many frames damage has cost between the last frame and this one."""
        damaged = self._damage > 0 or len(self._suspects) > 0
        if damaged:
            near = ticks - _REORDER * self._exact  # some parsers mark the packet before the hole
            self._suspects = [each for each in self._suspects if each >= near]
        if self._last is None:
            return passed if damaged else 0
        distance = float(ticks - self._last) / self._step
        gap = round(distance) - 1
        even = abs(distance - (gap + 1)) <= _UNEVEN
        if not damaged:
            self._steady = self._steady is not False and even and gap == 0
            return 0
        missing = max(0, gap) if self._steady and even else passed
        self._damage = max(0, self._damage - missing)
        return missing

    def notes(self) -> list[str]:
        """Sentences on what was repaired and left out, with places."""
        notes = []
        if self.restarts:
            notes.append(
                f"its clock steps back or jumps at {_places(self.restarts)}; times go on there by "
                "a frame's duration"
            )
        if self.ordered:
            notes.append(
                f"{self.ordered} time stamps are not in the order of frames (the container holds "
                "decoding times only); frames took them in order"
            )
        if self.moved:
            notes.append(
                f"{len(self.moved)} time stamps are not after the frame before, at "
                f"{_places(self.moved)}; these frames were put between their neighbors"
            )
        if self.lost:
            notes.append(
                f"{self.missing} damaged frames were left out and keep their numbers: "
                f"{_ranges(self.lost)}"
            )
        if self.concealed:
            notes.append(
                f"{len(self.concealed)} frames were decoded from damaged data and may show "
                f"something else, at {_places(self.concealed)}"
            )
        return notes


def listed(texts: list[str], count: int | None = None) -> str:
    """The first few of `texts`, for a sentence; of `count`, where not all of them are given."""
    more = (len(texts) if count is None else count) - _LISTED
    return ", ".join(texts[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _places(places: list[Place]) -> str:
    return listed([f"frame {place.index} ({place.time_s:.3f} s)" for place in places])


def _ranges(lost: list[tuple[Place, int]]) -> str:
    texts = []
    for first, count in lost:
        last = first.index + count - 1
        frames = f"frame {first.index}" if count == 1 else f"frames {first.index}-{last}"
        texts.append(f"{frames} (from {first.time_s:.3f} s)")
    return listed(texts)


@dataclass
class LiveClock:
    """Times of a live source that grow across reconnections and jumps of the stream's clock.

    step: of a frame, seconds.
    """

    step: float = 0.04
    began: float | None = None
    shift: float = 0.0
    raw: float | None = None
    last: float = -1.0

    def stamp(self, raw: float | None) -> float:
        """Seconds since the first frame; `raw` is the stream's own time, None: unknown."""
        next_s = self.last + self.step if self.last >= 0 else 0.0
        if raw is None:
            value = next_s
        else:
            if self.raw is None or not 0 < raw - self.raw <= JUMP_S:
                self.shift = max(self.arrival(), next_s) - raw
            value = raw + self.shift
        self.raw = raw
        self.last = max(value, self.last + _LEAST_S) if self.last >= 0 else value
        return self.last

    def arrival(self) -> float:
        """Seconds of real time since this was first called."""
        now = time.monotonic()
        if self.began is None:
            self.began = now
        return now - self.began

    def restart(self, step: float) -> None:
        """A new connection: its clock may start anywhere; its frames are about `step` apart."""
        self.raw, self.step = None, step
