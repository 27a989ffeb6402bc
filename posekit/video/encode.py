"""One video file being written: images in, one finished file or none."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, cast

import av
import av.error
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from posekit.atomic import AtomicFile
from posekit.errors import InputError, SourceError
from posekit.types import UInt8

Codec = Literal["h264", "vp9", "av1"]
_TICKS = 90_000  # a second; what MPEG counts in, fine enough for any frame rate
_BT709, _LIMITED = 1, 1  # matrix and range, written into the file so that players agree


@dataclass(frozen=True)
class WriteOptions:
    """How to encode.

    codec: h264 plays everywhere; vp9 and av1 are smaller and slower.
    quality: the encoder's constant quality, lower is better; None: 23 (h264), 34 (vp9), 35 (av1).
    threads: of the encoder. Two, because more compete with the network for the same cores and
        already two keep up with it.
    queue: images that may wait.
    """

    codec: Codec = "h264"
    quality: int | None = None
    threads: int = 2
    queue: int = 8

    def __post_init__(self) -> None:
        if self.codec not in ENCODERS:
            raise InputError(f"codec {self.codec!r}: wanted one of {', '.join(ENCODERS)}")
        if self.threads < 1 or self.queue < 1:
            raise InputError(f"threads {self.threads}, queue {self.queue}: wanted positive numbers")


@dataclass(frozen=True)
class Encoder:
    """An FFmpeg encoder, its settings for speed on a CPU, and the containers it goes into."""

    name: str
    settings: dict[str, str]
    suffixes: tuple[str, ...] = (".mp4", ".mkv", ".mov")


_WEB = (".mp4", ".mkv", ".webm")
# per codec, the first one that this build of PyAV has
ENCODERS: dict[str, tuple[Encoder, ...]] = {
    # veryfast: a third of the CPU time of FFmpeg's default at about the same quality a byte
    "h264": (
        Encoder("libx264", {"preset": "veryfast", "crf": "23"}),
        Encoder("libopenh264", {"rc_mode": "quality"}),
        Encoder("h264_videotoolbox", {"q": "60"}),
    ),
    "vp9": (
        Encoder(
            "libvpx-vp9",
            {"deadline": "realtime", "cpu-used": "7", "row-mt": "1", "crf": "34", "b": "0"},
            _WEB,
        ),
    ),
    "av1": (
        Encoder("libsvtav1", {"preset": "9", "crf": "35"}, _WEB),
        Encoder("libaom-av1", {"usage": "realtime", "cpu-used": "8", "crf": "35", "b": "0"}, _WEB),
    ),
}


def suffix_of(codec: Codec) -> str:
    """The file suffix to use for `codec`: browsers play all three from an MP4."""
    return ENCODERS[codec][0].suffixes[0]


_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}


def usable(codec: str) -> Encoder | None:
    """The encoder for `codec` that this build of PyAV has, or None."""
    for encoder in ENCODERS[codec]:
        try:
            av.Codec(encoder.name, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        return encoder
    return None


def find_encoder(codec: str, path: Path) -> Encoder:
    """The encoder to use for a file of this name. Raises SourceError, naming what there is."""
    encoder = usable(codec)
    if encoder is None:
        there = [name for name in ENCODERS if usable(name)]
        raise SourceError(
            f"{path}: this build of PyAV has no {codec} encoder; choose "
            f"{' or '.join(there) or 'another build (none of ours is there)'}"
        )
    if path.suffix.lower() not in encoder.suffixes:
        raise SourceError(
            f"{path}: {codec} goes into {', '.join(encoder.suffixes)}, not {path.suffix or 'this'}"
        )
    return encoder


class Encoding:
    """A file in the making, under a hidden name beside its own until `finish`.

    complete: False: `finish` gives it a name that ends in `.incomplete`.  path: its name.
    size: (W, H), px; odd ones are padded by one copied column or row at the right or bottom,
    since yuv420p needs even ones: pixel coordinates stay. An image of another size is scaled to
    fit, with black borders. Not for several threads. Raises SourceError.
    """

    def __init__(
        self, path: Path, *, size: tuple[int, int], fps: Fraction, options: WriteOptions
    ) -> None:
        self.path, self.size, self.count = path, size, 0
        self.complete = True
        self._step = max(1, round(_TICKS / fps))
        self._began_s = 0.0
        self._ticks = -1
        self._reformat = VideoReformatter()
        encoder = find_encoder(options.codec, path)
        os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 prints its settings on stderr otherwise
        if not path.parent.is_dir():
            raise SourceError(f"{path}: its folder is not there")
        self._container: OutputContainer | None = None
        self._output = AtomicFile(path, "wb")
        self._output.file.close()  # FFmpeg opens it by its hidden name
        try:
            container = _open(self._output.partial, _FORMATS[path.suffix.lower()])
            self._container = container
            self._stream = _add_stream(container, encoder, size, fps=fps, options=options)
            container.start_encoding()
        except (av.FFmpegError, OSError) as error:
            self.discard()
            raise SourceError(_explain(error, path, f"{encoder.name} at {size}")) from error

    def add(self, image: UInt8, time_s: float) -> None:
        """Append an image shown from `time_s` on; the first one is at 0 in the file."""
        if not self.count:
            self._began_s = time_s
        self.count += 1
        self._ticks = max(round((time_s - self._began_s) * _TICKS), self._ticks + 1)
        fitted = _even(_fit(np.ascontiguousarray(image), self.size))
        rgb = av.VideoFrame.from_numpy_buffer(fitted, "rgb24")
        frame = self._reformat.reformat(
            rgb, format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED
        )
        frame.pts, frame.time_base = self._ticks, Fraction(1, _TICKS)
        frame.duration = self._step
        self._encode(frame)

    @property
    def _opened(self) -> OutputContainer:
        if self._container is None:
            raise AssertionError("only an open file is written to")
        return self._container

    def _encode(self, frame: av.VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._opened.mux(packet)
        except (av.FFmpegError, OSError) as error:
            self.discard()
            raise SourceError(_explain(error, self.path, "the encoder")) from error

    def finish(self) -> None:
        """Write what is left and give the file its name; without any image there is no file.

        Raises SourceError.
        """
        if not self.count:
            self.discard()
            return
        self._encode(None)
        try:
            self._opened.close()
        except (av.FFmpegError, OSError) as error:
            self.discard()
            raise SourceError(_explain(error, self.path, "the encoder")) from error
        if self.complete:
            self._output.commit()
        else:
            self.path = self._output.keep_incomplete()

    def discard(self) -> None:
        """Leave no trace of the file. Safe to call twice."""
        # the disk may be full or gone; the file is removed next
        with contextlib.suppress(av.FFmpegError, OSError):
            if self._container is not None:
                self._container.close()
        self._output.abort()


def _open(path: Path, format_name: str) -> OutputContainer:
    # the index goes to the front, so that a browser plays before it has the whole file
    settings = {"movflags": "+faststart"} if format_name in ("mp4", "mov") else {}
    return av.open(f"file:{path.absolute()}", "w", format=format_name, options=settings)


def _add_stream(
    container: OutputContainer,
    encoder: Encoder,
    size: tuple[int, int],
    *,
    fps: Fraction,
    options: WriteOptions,
) -> VideoStream:
    settings = dict(encoder.settings)
    if options.quality is not None:
        settings["crf" if "crf" in settings else "q"] = str(options.quality)
    rate = min(fps.limit_denominator(1001), Fraction(_TICKS))  # nominal; each frame has its time
    stream = cast("VideoStream", container.add_stream(encoder.name, rate=rate))
    stream.width, stream.height = size[0] + size[0] % 2, size[1] + size[1] % 2
    stream.pix_fmt = "yuv420p"
    stream.options = dict(settings)
    context = stream.codec_context
    context.time_base = Fraction(1, _TICKS)
    context.colorspace, context.color_range = _BT709, _LIMITED
    context.color_primaries, context.color_trc = _BT709, _BT709
    context.gop_size = max(1, round(4 * fps))  # 4 s: quick to seek in, small enough
    context.thread_count = options.threads
    return stream


def _fit(image: UInt8, size: tuple[int, int]) -> UInt8:
    """`image` (H, W, 3) at `size` (W, H): as it is, or scaled with its shape kept, centered."""
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    scale = min(size[0] / width, size[1] / height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    x, y = (size[0] - w) // 2, (size[1] - h) // 2
    canvas[y : y + h, x : x + w] = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
    return canvas


def _even(image: UInt8) -> UInt8:
    """`image` with its last column or row copied where its size is odd."""
    down, right = image.shape[0] % 2, image.shape[1] % 2
    if not (down or right):
        return image
    padded = cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REPLICATE)
    return np.asarray(padded, np.uint8)


def _explain(error: Exception, path: Path, what: str) -> str:
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{path}: no room left to write it ({os.strerror(code)})"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path}: its folder cannot be written to ({os.strerror(code)})"
    if code == errno.ENOENT:
        return f"{path}: its folder is gone"
    reason = getattr(error, "strerror", None) or type(error).__name__
    return f"{path}: {what} failed ({reason})"
