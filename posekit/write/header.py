"""What an output says about where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from posekit.types import Skeleton


@dataclass(frozen=True)
class Header:
    """Where the poses of a file come from.

    version: of posekit.  model, model_sha256: bundle that made them.  source: path or URL.
    size: (W, H) of the first frame, px, or None.  fps: nominal frames a second, or None.
    images: names of all images of the source, in order; empty for video.
    """

    version: str
    model: str
    model_sha256: str
    skeleton: Skeleton
    source: str
    size: tuple[int, int] | None = None
    fps: float | None = None
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
        }
