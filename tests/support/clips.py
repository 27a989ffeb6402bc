"""Small videos made when a test runs; each image carries its own number."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

BITS = 10  # of the number, as vertical bars, dark or bright
MS = Fraction(1, 1000)


def numbered(index: int, size: tuple[int, int] = (160, 96)) -> NDArray[np.uint8]:
    """A gray image (H, W, 3) whose bars spell `index`; survives lossy coding."""
    width, height = size
    image = np.full((height, width, 3), 128, np.uint8)
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        image[:, left:right] = 220 if index >> bit & 1 else 40
    return image


def number_of(image: NDArray[np.uint8]) -> int:
    """The number that `numbered` painted."""
    width = image.shape[1]
    middles = [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)]
    row = image[image.shape[0] // 2, :, 1]
    return sum(1 << bit for bit, x in enumerate(middles) if row[x] > 128)


def make_clip(
    path: Path,
    images: Sequence[NDArray[np.uint8]] | int = 30,
    *,
    times_ms: Sequence[int] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    matrix: Sequence[int] | None = None,
    colors: tuple[int, int] | None = None,
    sound: bool = False,
) -> Path:
    """Write `images` (or so many numbered ones), 40 ms apart unless `times_ms` says otherwise.

    matrix: display matrix, nine integers.  colors: (matrix, range) as FFmpeg's numbers.
    """
    pictures = [numbered(i) for i in range(images)] if isinstance(images, int) else images
    times = [40 * i for i in range(len(pictures))] if times_ms is None else times_ms
    with av.open(str(path), "w", options=container or {}) as out:
        stream: Any = out.add_stream(codec, rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.options = pix_fmt, options or {}
        stream.codec_context.time_base = MS
        if matrix is not None:
            stream.set_display_matrix(list(matrix))
        if colors is not None:
            stream.codec_context.colorspace, stream.codec_context.color_range = colors
        track: Any = out.add_stream("aac", rate=16000, layout="mono") if sound else None
        for image, time in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if colors is not None:
                matrix_id, range_id = colors
                frame = frame.reformat(
                    format=pix_fmt, dst_colorspace=matrix_id, dst_color_range=range_id
                )
            frame.pts, frame.time_base = time, MS
            out.mux(stream.encode(frame))
        if track is not None:
            _add_sound(out, track, seconds=times[-1] / 1000)
        out.mux(stream.encode(None))
    return path


def make_sound(path: Path) -> Path:
    """A file with sound and no image."""
    with av.open(str(path), "w") as out:
        track: Any = out.add_stream("aac", rate=16000, layout="mono")
        _add_sound(out, track, seconds=0.5)
    return path


def _add_sound(out: Any, track: Any, seconds: float) -> None:
    for number in range(int(seconds * 16000 / 1024)):
        silence = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, number * 1024, Fraction(1, 16000)
        out.mux(track.encode(frame))
    out.mux(track.encode(None))
