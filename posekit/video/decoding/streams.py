"""Which stream of a container is read, and what shape its pixels have."""

from __future__ import annotations

from fractions import Fraction

from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

_ODDEST = 8  # a pixel this many times as wide as high, or as high as wide, is a mistake
Size = tuple[int, int]


def pixel_aspect(stream: VideoStream) -> Fraction:
    """Width of a pixel by its height; 1 where nothing is stated or what is stated is absurd."""
    stated = stream.sample_aspect_ratio
    if not stated or not Fraction(1, _ODDEST) <= stated <= _ODDEST:
        return Fraction(1)
    return Fraction(stated)


def square_size(size: Size, aspect: Fraction) -> Size:
    """(W, H) of a frame with square pixels: wider or higher, so that no detail is lost."""
    width, height = size
    if aspect >= 1:
        return round(width * aspect), height
    return width, round(height / aspect)


def shown_streams(container: InputContainer) -> list[VideoStream]:
    """Video streams that are not cover images, the default one first."""
    streams = container.streams.video
    moving = [each for each in streams if not each.disposition & Disposition.attached_pic]
    return sorted(moving, key=lambda each: not each.disposition & Disposition.default)


def stream_notes(container: InputContainer, stream: VideoStream) -> list[str]:
    """Sentences on the choice of the stream and the shape of its pixels."""
    notes = []
    shown, aspect = shown_streams(container), pixel_aspect(stream)
    if len(shown) > 1:
        others = ", ".join(str(each.index) for each in shown if each.index != stream.index)
        notes.append(f"{len(shown)} video streams; stream {stream.index} was read, not {others}")
    size = (stream.width, stream.height)
    if (square := square_size(size, aspect)) != size:
        notes.append(
            f"its pixels are {aspect.numerator}:{aspect.denominator}, not square; frames were "
            f"scaled from {size[0]} x {size[1]} to {square[0]} x {square[1]} px"
        )
    return notes
