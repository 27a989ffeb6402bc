"""Opens what FFmpeg can open, and explains in one sentence why it could not."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from posekit.errors import SourceError
from posekit.video.decoding.streams import shown_streams
from posekit.video.image_header import image_header
from posekit.video.options import ReadOptions, check_pixels
from posekit.video.sources import Source

_FILE_LIMIT_S = 30.0
_START_BYTES = 1 << 16
_PLAYLIST = b"#EXTM3U"
_PLAYLIST_BYTES = 64 << 20
_ENDLESS = (
    "a playlist without #EXT-X-ENDLIST, which may go on for ever; give the stream's URL, or add "
    "that line to read what is there"
)
_NO_DECODER = "this build of PyAV has no decoder for it"
_TEXT_FORMATS = {"tty"}  # FFmpeg draws text files as images, which is never wanted


def open_input(source: Source, options: ReadOptions) -> InputContainer:
    """An open container that has a video stream. Raises SourceError in one sentence.

    A source that does not respond is given up after `time_limit_s`, also in each later read.
    """
    _check_start(source, options)
    target, format_name, settings = _how(source, options)
    timeout = time_limit_s(source, options)
    began = time.monotonic()
    try:
        container = av.open(
            target,
            mode="r",
            format=format_name,
            options={**settings, "max_pixels": str(options.max_pixels)},
            metadata_errors="replace",
            timeout=timeout,
        )
    except (av.FFmpegError, OSError) as error:
        if time.monotonic() - began >= timeout:
            raise SourceError(no_response(source, options)) from error  # RTSP gives other errors
        raise SourceError(explain(error, source, options)) from error
    try:
        _check(container, source, options)
    except SourceError:
        container.close()
        raise
    return container


def time_limit_s(source: Source, options: ReadOptions) -> float:
    """How long opening or one read may take; a file lies on a disk that may have to wake up."""
    return options.timeout_s if source.kind != "file" else max(options.timeout_s, _FILE_LIMIT_S)


def _check(container: InputContainer, source: Source, options: ReadOptions) -> None:
    if container.format.name in _TEXT_FORMATS:
        raise SourceError(f"{source.name}: a text file, not a video or image")
    if source.kind == "file" and container.format.name == "hls" and not container.duration:
        raise SourceError(f"{source.name}: {_ENDLESS}")
    stream = video_stream(container, source)
    check_pixels(source.name, (stream.width, stream.height), options.max_pixels)
    # also for a size that changes later
    stream.codec_context.options = {"max_pixels": str(options.max_pixels)}


def _check_start(source: Source, options: ReadOptions) -> None:
    """Judge a file by its first bytes, before FFmpeg opens it. Raises SourceError.

    An image under any name is judged by its header. A playlist must state its end: FFmpeg would
    read it again and again, waiting for more.
    """
    path = Path(source.target)
    if source.kind != "file" or not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
        header = image_header(start)
        if header is not None:
            check_pixels(source.name, (header.width, header.height), options.max_pixels)
        if start.startswith(_PLAYLIST):
            text = start + file.read(_PLAYLIST_BYTES)
            if b"#EXTINF" in text and b"#EXT-X-ENDLIST" not in text:
                raise SourceError(f"{source.name}: {_ENDLESS}")


def video_stream(container: InputContainer, source: Source) -> VideoStream:
    """The default video stream, else the first; never a cover image. Raises SourceError."""
    shown = shown_streams(container)
    if not shown:
        kinds = sorted({str(s.type) for s in container.streams}) or ["nothing"]
        found = "only a cover image" if container.streams.video else ", ".join(kinds)
        raise SourceError(f"{source.name}: no video stream in it (found {found})")
    if not shown[0].codec_context:  # of an unknown codec: it has no width either
        raise SourceError(f"{source.name}: {_NO_DECODER}")
    return shown[0]


def _how(source: Source, options: ReadOptions) -> tuple[str, str | None, dict[str, str]]:
    """What `av.open` needs: target, format or None, options."""
    if source.kind == "webcam":
        return _webcam(source)
    if source.kind == "file":
        # "file:" keeps a colon in a file's name from being taken for a protocol
        return f"file:{Path(source.target).absolute()}", None, {}
    micros = str(int(options.timeout_s * 1e6))
    if source.target.startswith("rtsp"):
        return source.target, None, {"rtsp_transport": "tcp", "timeout": micros}
    if source.target.startswith("http"):
        seconds = str(max(1, int(options.timeout_s)))
        settings = {"rw_timeout": micros, "reconnect": "1", "reconnect_delay_max": seconds}
        return source.target, None, settings
    return source.target, None, {"rw_timeout": micros}


def _webcam(source: Source) -> tuple[str, str | None, dict[str, str]]:
    """Linux: v4l2; macOS: AVFoundation. Raises SourceError elsewhere or where it is absent."""
    if sys.platform == "darwin":
        return f"{source.target}:none", "avfoundation", {"framerate": "30"}
    if not sys.platform.startswith("linux"):
        raise SourceError(
            f"{source.name}: webcams are read on Linux and macOS only; pass a URL or a file"
        )
    device = f"/dev/video{source.target}" if source.target.isdecimal() else source.target
    if not Path(device).exists():
        there = sorted(str(path) for path in Path("/dev").glob("video*"))
        raise SourceError(
            f"{source.name}: {device} is not there (cameras here: {', '.join(there) or 'none'})"
        )
    return device, "video4linux2", {}


_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (av.error.FileNotFoundError, "no such file"),
    (av.error.PermissionError, "permission denied"),
    (av.error.HTTPNotFoundError, "the server returns 404 (not found)"),
    (av.error.HTTPUnauthorizedError, "the server requires a user name and password"),
    (av.error.HTTPForbiddenError, "the server returns 403 (forbidden)"),
    (av.error.HTTPError, "the server returns an error"),
    (av.error.HTTPClientError, "the server refuses the request"),
    (av.error.ConnectionRefusedError, "nothing listens there (connection refused)"),
    (av.error.ConnectionResetError, "the connection was cut"),
    (av.error.DecoderNotFoundError, _NO_DECODER),
    (av.error.ProtocolNotFoundError, "this build of PyAV cannot read URLs of that kind"),
)


def explain(error: Exception, source: Source, options: ReadOptions) -> str:
    """One sentence for an FFmpeg error; it never shows a URL's password."""
    if isinstance(error, (av.error.ExitError, av.error.TimeoutError)):
        return no_response(source, options)
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return f"{source.name}: {reason}"
    if isinstance(error, av.error.ArgumentError):
        return (
            f"{source.name}: its frames have more than {options.max_pixels:,} pixels, or their "
            "size is damaged; --max-pixels raises the limit"
        )
    if isinstance(error, av.error.InvalidDataError):
        return f"{source.name}: {_invalid(source)}"
    if source.kind == "url":
        return f"{source.name}: cannot be reached ({_plain(error)})"
    return f"{source.name}: cannot be read ({_plain(error)})"


def no_response(source: Source, options: ReadOptions) -> str:
    """The sentence for a source that was given up."""
    return f"{source.name}: no response within {time_limit_s(source, options):g} s"


def _plain(error: Exception) -> str:
    code = getattr(error, "errno", None)
    if isinstance(code, int) and 0 < code < 200:
        return os.strerror(code)
    return str(getattr(error, "strerror", None) or type(error).__name__)


def _invalid(source: Source) -> str:
    """Why FFmpeg finds no video in the bytes: cut off, text, or something else."""
    if source.kind != "file":
        return "what comes from there is not a video"
    with Path(source.target).open("rb") as file:
        head = file.read(4096)
    if head[4:8] == b"ftyp":
        return "an MP4 whose index (moov) is missing or damaged; it was probably cut off"
    if head.isascii() and b"\x00" not in head:
        return "a text file, not a video or image"
    return "not a video or image that can be read"
