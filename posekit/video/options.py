"""How to read a source, and what it turns out to be."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from posekit.errors import InputError, SourceError

MAX_PIXELS = 120_000_000  # of a frame: the largest phone photos but one kind, 360 MB as RGB
Kind = Literal["video", "images", "live"]


@dataclass(frozen=True)
class ReadOptions:
    """Which frames of a source to read, and how patient to be.

    every: each n-th frame; the first one of the window is always there.
    start_s, end_s: window [start, end) in seconds from the first frame.
    live: "latest" drops and counts what is not taken in time; "all" waits.
    reconnects: tries in a row, with growing pauses, before a broken live source is given up.
    timeout_s: for opening and for each read; files have 30 s at least.
    prefetch: frames decoded ahead.
    threads: of the decoder; None: at most 4.
    skip_unreadable: images that cannot be read are left out, counted and noted; else an error.
    max_pixels: of a frame; a larger one is refused before it is decoded.
    """

    every: int = 1
    start_s: float = 0
    end_s: float | None = None
    live: Literal["latest", "all"] = "latest"
    reconnects: int = 5
    timeout_s: float = 10
    prefetch: int = 8
    threads: int | None = None
    skip_unreadable: bool = False
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        end_s = math.inf if self.end_s is None else self.end_s
        if not 0 <= self.start_s < end_s:
            raise InputError(f"start {self.start_s} s, end {self.end_s} s: wanted 0 <= start < end")
        if self.every < 1 or self.prefetch < 1 or self.reconnects < 0:
            raise InputError(
                f"every {self.every}, prefetch {self.prefetch}, reconnects {self.reconnects}: "
                "wanted every and prefetch >= 1, reconnects >= 0"
            )
        if not self.timeout_s > 0 or (self.threads is not None and self.threads < 1):
            raise InputError(
                f"timeout {self.timeout_s} s, threads {self.threads}: wanted timeout > 0 and "
                "threads >= 1"
            )
        if self.max_pixels < 1:
            raise InputError(f"max_pixels {self.max_pixels}: wanted 1 or more")
        if self.live not in ("latest", "all"):
            raise InputError(f"live mode {self.live!r}: wanted latest or all")


@dataclass
class Info:
    """What the decoding thread has found out so far; the Reader shows it.

    pixel_aspect: width by height of a stored pixel.  stored_size: (W, H) of the first frame before
    it is made square and upright.  start_time_s: of the first frame on the stream's own clock.
    found: notes on the frames so far, of a source that may never end.
    """

    kind: Kind = "video"
    decoder: str = "PyAV"
    fps: Fraction = Fraction(30)
    frame_count: int | None = None
    reconnected: int = 0
    unreadable: int = 0
    opened: bool = False
    pixel_aspect: Fraction = Fraction(1)
    stored_size: tuple[int, int] | None = None
    start_time_s: float = 0.0
    notes: list[str] = field(default_factory=list)
    found: Callable[[], list[str]] = list
    decode_s: deque[float] = field(default_factory=lambda: deque(maxlen=10_000))


def check_pixels(name: str, size: tuple[int, int], max_pixels: int) -> None:
    """Raises SourceError where a frame of `size` (W, H) has more than `max_pixels`."""
    width, height = size
    if width * height > max_pixels:
        raise SourceError(
            f"{name}: {width} x {height} px are more than {max_pixels:,} pixels; if it is meant, "
            "raise the limit with `posekit infer --max-pixels`"
        )


def count_in_window(total: float, fps: Fraction, options: ReadOptions) -> int:
    """How many of `total` evenly spaced frames `options` select."""
    first = math.ceil(options.start_s * fps - 1e-6)
    last = total if options.end_s is None else min(total, math.ceil(options.end_s * fps - 1e-6))
    return max(0, math.ceil((last - first) / options.every))
