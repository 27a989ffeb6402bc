"""What single frames of a video show: sizes and fields; and notes on it."""

from __future__ import annotations

from dataclasses import dataclass, field

from av.video.frame import VideoFrame

from posekit.video.decoding.streams import Size
from posekit.video.decoding.surface import Surface
from posekit.video.timeline import Place, listed


@dataclass
class Survey:
    """Collects what single frames show.

    changes: first frames of another size than the frame before, with that size.
    interlaced: so many frames hold two fields.
    """

    changes: list[tuple[Place, Size]] = field(default_factory=list)
    frames: int = 0
    interlaced: int = 0
    size: Size = (0, 0)

    def take(self, frame: VideoFrame | Surface, place: Place) -> None:
        """Examine the next frame."""
        if not isinstance(frame, VideoFrame):
            return
        size = (frame.width, frame.height)
        if size != self.size:
            if self.frames:
                self.changes.append((place, size))
            self.size = size
        self.frames += 1
        self.interlaced += frame.interlaced_frame

    def notes(self) -> list[str]:
        """Sentences on what was found."""
        notes = []
        if self.changes:
            places = [
                f"{size[0]} x {size[1]} px from frame {place.index} ({place.time_s:.3f} s)"
                for place, size in self.changes
            ]
            notes.append(
                f"the frame size changes: {listed(places)}; points are in the pixels of their frame"
            )
        if self.interlaced:
            notes.append(
                f"{self.interlaced} of {self.frames} frames are interlaced (two fields a frame) "
                "and were not deinterlaced: points of fast motion lie between the fields"
            )
        return notes
