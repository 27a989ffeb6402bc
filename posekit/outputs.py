"""The files that one source leaves behind, written by a background thread in frame order."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import cv2

from posekit import video
from posekit.atomic import check_free, write_atomic
from posekit.draw import draw
from posekit.errors import PosekitError
from posekit.mjpeg import MjpegServer
from posekit.types import Frame, Poses
from posekit.write import Header, Writers, open_writers

QUEUE = 8  # frames between inference and writing; a 1080p frame is 6 MB

Timed = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class OutputOptions:
    """What is written, and where.

    folder: made where it is missing.  formats: of posekit.write.  overlay: also draw.
    codec: h264, vp9 or av1.  overwrite: replace what is there.
    segment_s: live output is cut into `<stem>_000`, `<stem>_001`, … this long, seconds.
    """

    folder: Path
    formats: tuple[str, ...] = ("jsonl",)
    overlay: bool = True
    codec: video.Codec = "h264"
    overwrite: bool = False
    segment_s: float = 600.0


class Outputs:
    """Keypoint files, the overlay and the MJPEG picture of one source.

    A context manager: left normally or by Ctrl-C the files are finished and `paths` names them;
    left by a PosekitError nothing remains. `timed` measures the stages write, draw and encode.
    """

    def __init__(
        self,
        options: OutputOptions,
        reader: video.Reader,
        header: Header,
        *,
        server: MjpegServer | None,
        timed: Timed,
    ) -> None:
        self.paths: list[Path] = []
        self._options, self._reader, self._header = options, reader, header
        self._server, self._timed = server, timed
        self._segment, self._segment_start_s = 0, 0.0
        self._pending: deque[Future[None]] = deque()
        self._open()
        self._pool = ThreadPoolExecutor(1, "posekit-write")

    def put(self, frame: Frame, poses: Poses) -> None:
        """Queue a frame; waits while QUEUE frames are under way, raises what writing raised."""
        self._pending.append(self._pool.submit(self._write, frame, poses))
        while len(self._pending) > QUEUE:
            self._pending.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        failed = kind is not None and issubclass(kind, PosekitError)
        self._pool.shutdown(wait=True, cancel_futures=failed)
        try:
            if failed:
                self._abort()
            else:
                for future in self._pending:
                    future.result()
                self._close()
        except PosekitError:
            self._abort()
            raise

    def _open(self) -> None:
        live = self._reader.kind == "live"
        stem = f"{self._reader.stem}_{self._segment:03d}" if live else self._reader.stem
        options = self._options
        self._overlay: _Film | _Pictures | None = None
        if options.overlay and self._reader.kind == "images":
            self._overlay = _Pictures(options, stem, self._reader.names)
        elif options.overlay:
            self._overlay = _Film(options, stem, self._reader)
        self._writers: Writers = open_writers(
            options.formats, options.folder, stem, header=self._header, overwrite=options.overwrite
        )

    def _write(self, frame: Frame, poses: Poses) -> None:
        if self._reader.kind == "live" and self._ends_segment(frame.time_s):
            self._close()
            self._segment += 1
            self._segment_start_s = frame.time_s
            self._open()
        with self._timed("write"):
            self._writers.write(frame, poses)
        if self._overlay is None and self._server is None:
            return
        with self._timed("draw"):
            picture = draw(frame.image, poses)
        if self._server is not None:
            self._server.push(picture)
        if self._overlay is not None:
            with self._timed("encode"):
                self._overlay.write(replace(frame, image=picture))

    def _ends_segment(self, time_s: float) -> bool:
        return time_s - self._segment_start_s >= self._options.segment_s

    def _close(self) -> None:
        self.paths += self._writers.close()
        if self._overlay is not None:
            self.paths += self._overlay.close()

    def _abort(self) -> None:
        if self._overlay is not None:
            self._overlay.abort()
        self._writers.abort()  # last: they were opened first and may have made the folder


class _Film:
    """The overlay of a video; the file is opened with the first frame, whose size it takes."""

    def __init__(self, options: OutputOptions, stem: str, reader: video.Reader) -> None:
        suffix = video.suffix_of(options.codec)
        self._path = options.folder / f"{stem}{suffix}"
        check_free(self._path, overwrite=options.overwrite)
        self._codec, self._fps = options.codec, reader.fps
        self._writer: video.VideoWriter | None = None
        self._start_s = 0.0

    def write(self, frame: Frame) -> None:
        if self._writer is None:
            height, width = frame.image.shape[:2]
            wanted = video.WriteOptions(codec=self._codec)
            self._writer = video.VideoWriter(
                self._path, size=(width, height), fps=self._fps, options=wanted
            )
            self._start_s = frame.time_s
        self._writer.write(frame.image, frame.time_s - self._start_s)

    def close(self) -> list[Path]:
        if self._writer is None:
            return []
        self._writer.close()
        return [self._path]

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()


class _Pictures:
    """Overlays of images: `<stem>_overlay.jpg` for one, `<stem>_overlay/` for many."""

    def __init__(self, options: OutputOptions, stem: str, names: Sequence[str]) -> None:
        self._single = len(names) == 1
        self._stems = Counter(Path(name).stem.casefold() for name in names)
        name = f"{stem}_overlay.jpg" if self._single else f"{stem}_overlay"
        self._path = options.folder / name
        check_free(self._path, overwrite=options.overwrite)

    def write(self, frame: Frame) -> None:
        path, stem = self._path, Path(frame.name).stem
        if not self._single:
            twice = self._stems[stem.casefold()] > 1  # a.jpg and a.png
            path = path / (f"{stem}_{frame.index:06d}.jpg" if twice else f"{stem}.jpg")
        quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
        _, data = cv2.imencode(".jpg", cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR), quality)
        write_atomic(path, data.tobytes())

    def close(self) -> list[Path]:
        return [self._path] if self._path.exists() else []

    def abort(self) -> None:
        """Nothing is left open: each picture appeared whole."""
