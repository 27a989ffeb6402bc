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
from posekit.video.options import Info, ReadOptions, count_in_window
from posekit.video.sources import Source

_FPS = Fraction(1)  # images know no time: one a second


def read_image(path: Path) -> UInt8:
    """RGB uint8 (H, W, 3); turned as EXIF says, alpha left out, 16 bit cut to the upper 8.

    Raises SourceError, naming the file.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error) as error:
        reason = getattr(error, "strerror", None) or "OpenCV cannot decode it"
        raise SourceError(f"{path}: {reason}") from error
    if image is None:
        raise SourceError(f"{path}: not an image that can be decoded (damaged, or another format)")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image).astype(np.uint8, copy=False)


def image_frames(source: Source, options: ReadOptions, info: Info) -> Iterator[Frame]:
    """The images of `source` in order, one second apart.

    With `skip_unreadable` an image that cannot be read leaves a gap in the indices, and a note.
    Raises SourceError.
    """
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
    for index in chosen:
        path = source.paths[index]
        try:
            image = read_image(path)
        except SourceError as error:
            info.unreadable += 1
            info.notes.append(f"left out: {error}")
            if not options.skip_unreadable or info.unreadable == len(chosen):
                raise
            continue
        yield Frame(image, index, float(index), path.name)
