"""One image as a frame, however a caller has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from posekit.errors import InputError, SourceError
from posekit.types import Color, Frame, UInt8
from posekit.video.images import read_image
from posekit.video.sources import VIDEO_SUFFIXES

_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV")


class PilImage(Protocol):
    """What is used of a `PIL.Image.Image`."""

    @property
    def mode(self) -> str:
        """Its kind of pixels."""
        ...

    def convert(self, mode: str) -> Any:
        """A copy with another kind of pixels."""
        ...


Still = UInt8 | Frame | str | Path | PilImage
"""An image: uint8 array (H, W, 3), Frame, path of a file, or PIL image."""


def still_frame(image: Still, color: Color = "rgb", *, index: int = 0) -> Frame:
    """`image` as a frame in RGB; Frames are returned as they are.

    color: the order of an array's channels; files and PIL images state theirs. Both are turned
    upright by their EXIF.  Raises InputError, SourceError.
    """
    if color not in ("rgb", "bgr"):
        raise InputError(f"color: wanted rgb or bgr, got {color!r}")
    if isinstance(image, Frame):
        return image
    if isinstance(image, str | Path):
        return Frame(_read(str(image)), index, name=str(image))
    if not isinstance(image, np.ndarray) and hasattr(image, "convert") and hasattr(image, "mode"):
        return Frame(_from_pil(image), index)
    frame = Frame(image, index)  # type: ignore[arg-type]  # it checks what it gets
    if color == "bgr":
        rgb = np.asarray(cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB), np.uint8)
        return Frame(rgb, index)
    return frame


def _read(text: str) -> UInt8:
    """Raises SourceError, with what takes a source that is no image."""
    path = Path(text).expanduser()
    if "://" in text or path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES:
        raise SourceError(
            f"{text}: not one image; Estimator.stream takes videos, folders, cameras and URLs"
        )
    return read_image(path)


def _from_pil(image: PilImage) -> UInt8:
    """RGB, turned by EXIF; alpha is left out. Raises InputError for pixels of more than 8 bits."""
    if image.mode not in _MODES:
        raise InputError(
            f"image: a PIL image of mode {image.mode}, whose pixels have more than 8 bits; wanted "
            "one that convert('RGB') keeps: scale it to 0..255 first"
        )
    return np.array(_upright(image).convert("RGB"), np.uint8)


def _upright(image: Any) -> PilImage:
    """As its EXIF states, like a file by its path; as it is where that cannot be read."""
    from PIL import ImageOps  # there where a caller has such an image; posekit needs no Pillow

    try:
        turned: PilImage = ImageOps.exif_transpose(image)
    except SyntaxError:  # EXIF that is no TIFF
        return image  # type: ignore[no-any-return]
    return turned
