"""Image files as frames: upright, RGB, 8 bit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from posekit.errors import SourceError
from posekit.types import Frame, UInt8
from posekit.video.image_header import image_header
from posekit.video.options import MAX_PIXELS, Info, ReadOptions, check_pixels, count_in_window
from posekit.video.sources import Source
from posekit.video.timeline import listed

_DAMAGED = "not an image that can be decoded (damaged, or another format)"
_FPS = Fraction(1)  # images have no time: one a second


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> UInt8:
    """RGB uint8 (H, W, 3); turned by EXIF, alpha left out, 16 bit cut to the upper 8.

    The size is read from the header first. Raises SourceError, naming the file.
    """
    return _load(path, max_pixels)[0]


def _load(path: Path, max_pixels: int) -> tuple[UInt8, int]:
    """The first page of an image file, and how many pages it has."""
    try:
        data = path.read_bytes()
        pages = _checked(path, data, max_pixels)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error) as error:
        reason = getattr(error, "strerror", None) or "OpenCV cannot decode it"
        raise SourceError(f"{path}: {reason}") from error
    if image is None:
        raise SourceError(f"{path}: {_DAMAGED}")
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image).astype(np.uint8, copy=False)
    return rgb, pages


def _checked(path: Path, data: bytes, max_pixels: int) -> int:
    """How many pages the file has. Raises SourceError: no image, or too large a one."""
    header = image_header(data)
    if header is None or not (header.width and header.height):
        raise SourceError(f"{path}: {_DAMAGED}")
    check_pixels(str(path), (header.width, header.height), max_pixels)
    return header.pages


def image_frames(source: Source, options: ReadOptions, info: Info) -> Iterator[Frame]:
    """The images of `source` in order, one second apart.

    With `skip_unreadable` an image that cannot be read leaves a gap in the indices, and a note.
    Raises SourceError.
    """
    info.notes += source.notes
    info.kind, info.decoder, info.fps = "images", "OpenCV", _FPS
    info.frame_count = count_in_window(len(source.paths), _FPS, options)
    first = math.ceil(options.start_s)
    after = len(source.paths) if options.end_s is None else math.ceil(options.end_s)
    chosen = range(len(source.paths))[first : after : options.every]
    if not chosen:
        raise SourceError(
            f"{source.name}: {len(source.paths)} images, one a second, and none of them lies "
            f"between {options.start_s:g} s and {options.end_s} s"
        )
    if options.start_s or after < len(source.paths):
        info.notes.append(
            f"{source.name}: of its {len(source.paths)} images, one a second, those from "
            f"{options.start_s:g} s to {options.end_s or len(source.paths):g} s were read"
        )
    several: list[str] = []
    for index in chosen:
        path = source.paths[index]
        try:
            image, pages = _load(path, options.max_pixels)
        except SourceError as error:
            info.unreadable += 1
            info.notes.append(f"left out: {error}")
            if not options.skip_unreadable or info.unreadable == len(chosen):
                raise
            continue
        if pages > 1:
            several.append(f"{path.name} ({pages})")
        yield Frame(image, index, float(index), source.identity(path))
    if several:
        info.notes.append(
            f"{source.name}: {len(several)} files hold several pages or frames, of which the first "
            f"was read: {listed(several)}"
        )
