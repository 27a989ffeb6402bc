"""The provenance in an output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from posekit.types import Skeleton


@dataclass(frozen=True)
class Header:
    """Where the poses of a file come from.

    version: of posekit.  model, model_sha256: bundle that made them.  source: path or URL.
    size: (W, H) of the first frame, px, or None: square pixels, upright; points are in it.
    stored_size, pixel_aspect: as the source stores it, "64:45" where a pixel is wider than high.
    fps: nominal frames a second, or None.  start_time_s: the source's own time where times are 0.
    images: names of all images of the source, in order; empty for video.
    """

    version: str
    model: str
    model_sha256: str
    skeleton: Skeleton
    source: str
    size: tuple[int, int] | None = None
    fps: float | None = None
    stored_size: tuple[int, int] | None = None
    pixel_aspect: str = "1:1"
    start_time_s: float = 0.0
    images: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The first line of a JSON Lines file."""
        return {
            "posekit": self.version,
            "model": self.model,
            "model_sha256": self.model_sha256,
            "skeleton": self.skeleton.to_dict(),
            "source": self.source,
            "size": None if self.size is None else list(self.size),
            "fps": self.fps,
            "stored_size": list(self.stored_size or self.size or []) or None,
            "pixel_aspect": self.pixel_aspect,
            "start_time_s": round(self.start_time_s, 6),
        }
