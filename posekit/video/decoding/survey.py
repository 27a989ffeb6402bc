"""What single frames of a video show: sizes and fields; and notes on it."""

from __future__ import annotations

from dataclasses import dataclass, field

from av.video.frame import VideoFrame

from posekit.video.decoding.streams import Size
from posekit.video.decoding.surface import Surface
from posekit.video.timeline import Place, listed

_KEPT = 100  # changes with their places


@dataclass
class Survey:
    """Collects what single frames show, of endless streams too.

    announced: size that the container states, (0, 0) where it states none.
    changes: first frames of another size than the frame before, with that size; the first ones.
    change_count: of all.  interlaced: so many frames hold two fields.
    """

    announced: Size = (0, 0)
    changes: list[tuple[Place, Size]] = field(default_factory=list)
    change_count: int = 0
    frames: int = 0
    interlaced: int = 0
    first_size: Size = (0, 0)
    size: Size = (0, 0)

    def take(self, frame: VideoFrame | Surface, place: Place) -> None:
        """Examine the next frame."""
        if not isinstance(frame, VideoFrame):
            return
        size = (frame.width, frame.height)
        if not self.frames:
            self.first_size = self.size = size
        if size != self.size:
            self.change_count += 1
            if len(self.changes) < _KEPT:
                self.changes.append((place, size))
            self.size = size
        self.frames += 1
        self.interlaced += frame.interlaced_frame

    def notes(self) -> list[str]:
        """Sentences on what was found."""
        notes = []
        if self.frames and self.announced not in ((0, 0), self.first_size):
            notes.append(
                f"the container states frames of {_px(self.announced)}, and the first has "
                f"{_px(self.first_size)}; frames are read as they are"
            )
        if self.changes:
            places = [
                f"{_px(size)} from frame {place.index} ({place.time_s:.3f} s)"
                for place, size in self.changes
            ]
            notes.append(
                f"the frame size changes: {listed(places, self.change_count)}; points are in the "
                "pixels of their frame"
            )
        if self.interlaced:
            notes.append(
                f"{self.interlaced} of {self.frames} frames are interlaced (two fields a frame) "
                "and were not deinterlaced: points of fast motion lie between the fields"
            )
        return notes


def _px(size: Size) -> str:
    return f"{size[0]} x {size[1]} px"
