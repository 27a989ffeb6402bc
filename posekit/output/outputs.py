"""The files that one source leaves behind, written by a background thread in frame order."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import cv2

from posekit import video, write
from posekit.atomic import AtomicFile, AtomicFolder, check_free, explained, new_folder
from posekit.drawing.draw import draw
from posekit.drawing.style import DrawStyle
from posekit.errors import SourceError
from posekit.inputs.parsing import number
from posekit.output.mjpeg import MjpegServer
from posekit.types import Frame, Poses
from posekit.write import Header, Writers

QUEUE = 8  # frames between inference and writing, where they are not very large

Timed = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class OutputOptions:
    """What is written, and where.

    folder: made where it is missing; None: `posekit_output/<stem of the first source>`, a new one
        numbered on (`<stem>-2`) where that exists, or with `overwrite` that one.
    formats: of posekit.write.  overlay: also draw, in this `style`.
    codec: h264, vp9 or av1.  overwrite: replace what is there.
    segment_s: live output is cut into `<stem>_000`, `<stem>_001`, … this long, seconds.
    """

    folder: Path | None = None
    formats: tuple[str, ...] = ("jsonl",)
    overlay: bool = True
    style: DrawStyle = DrawStyle()
    codec: video.Codec = "h264"
    overwrite: bool = False
    segment_s: float = 600.0

    def __post_init__(self) -> None:
        number(self.segment_s, name="segment_s", low=1e-3)


@contextmanager
def output_folder(options: OutputOptions, sources: Sequence[video.Source]) -> Iterator[Path]:
    """Where the results go; a folder that is made here is removed again if it stays empty.

    Raises SourceError.
    """
    default = Path(video.OUTPUT_FOLDER) / sources[0].stem if sources else Path(video.OUTPUT_FOLDER)
    if options.folder is not None or options.overwrite:
        yield options.folder or default
        return
    with new_folder(default) as folder:
        yield folder


def summary_path(folder: Path, source: video.Source) -> Path:
    """Of one source."""
    return folder / f"{source.stem}.summary.json"


def output_paths(options: OutputOptions, folder: Path, source: video.Source) -> list[Path]:
    """All that a source may write; of segments of a live source those whose names are taken.

    Raises InputError for an unknown format.
    """
    stem = source.stem
    paths = list(write.output_paths(options.formats, folder, stem).values())
    if options.overlay:
        ending = video.suffix_of(options.codec)
        if source.kind == "images":
            ending = "_overlay.jpg" if len(source.paths) == 1 else "_overlay"
        paths.append(folder / f"{stem}{ending}")
    if video.is_live(source) and folder.is_dir():
        endings = "|".join(re.escape(path.name.removeprefix(stem)) for path in paths)
        segment = re.compile(rf"{re.escape(stem)}_\d{{3,}}({endings})")
        paths += [each for each in folder.iterdir() if segment.fullmatch(each.name)]
    return [*paths, summary_path(folder, source)]


class Outputs:
    """Keypoint files, the overlay and the MJPEG image of one source.

    A context manager: left normally the files are finished and `paths` names them; left by any
    exception what was written is kept as `<name>.incomplete`, in `incomplete`, with a note in the
    exception. Where nothing was written, or an output cannot be written, nothing remains.
    `timed` measures the stages write, draw and encode.
    """

    def __init__(
        self,
        options: OutputOptions,
        folder: Path,
        reader: video.Reader,
        *,
        header: Header,
        server: MjpegServer | None,
        timed: Timed,
    ) -> None:
        self.paths: list[Path] = []
        self.incomplete: list[Path] = []
        self._options, self._folder = options, folder
        self._reader, self._header = reader, header
        self._server, self._timed = server, timed
        self._segment, self._segment_start_s, self._count = 0, 0.0, 0
        self._pending: deque[Future[None]] = deque()
        self._writable = True
        self._open()
        self._pool = ThreadPoolExecutor(1, "posekit-write")

    def put(self, frame: Frame, poses: Poses) -> None:
        """Queue a frame; waits while many are under way, raises what writing raised."""
        self._pending.append(self._pool.submit(self._write, frame, poses))
        width, height = frame.size
        while len(self._pending) > max(1, min(QUEUE, video.QUEUE_BYTES // (3 * width * height))):
            self._written()

    def _written(self) -> None:
        """Wait for the oldest frame."""
        try:
            self._pending.popleft().result()
        except SourceError:
            self._writable = False
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, *_: object
    ) -> None:
        at_once = not self._writable or kind is KeyboardInterrupt
        self._pool.shutdown(wait=True, cancel_futures=at_once)
        if error is not None:
            self._end_incomplete(error)
            return
        try:
            while self._pending:
                self._written()
        except BaseException as late:
            self._end_incomplete(late)
            raise
        with ExitStack() as on_failure:
            on_failure.callback(self._abort)
            if self._count or self.paths:  # else it was stopped before its first frame
                self._close()
                on_failure.pop_all()

    def _end_incomplete(self, error: BaseException) -> None:
        with ExitStack() as on_failure:
            on_failure.callback(self._abort)
            if self._writable and self._count:
                self._keep(error)
                on_failure.pop_all()

    def _open(self) -> None:
        live = self._reader.kind == "live"
        stem = f"{self._reader.stem}_{self._segment:03d}" if live else self._reader.stem
        options = self._options
        self._overlay: _Film | _Images | None = None
        if options.overlay and self._reader.kind == "images":
            self._overlay = _Images(options, self._folder / stem, self._reader.names)
        elif options.overlay:
            self._overlay = _Film(options, self._folder / stem, self._reader)
        with ExitStack() as on_failure:
            if self._overlay is not None:
                on_failure.callback(self._overlay.abort)
            self._writers: Writers = write.open_writers(
                options.formats,
                self._folder,
                stem,
                header=self._header,
                overwrite=options.overwrite,
            )
            on_failure.pop_all()

    def _write(self, frame: Frame, poses: Poses) -> None:
        if self._reader.kind == "live" and self._ends_segment(frame.time_s):
            self._close()
            self._segment += 1
            self._segment_start_s, self._count = frame.time_s, 0
            self._open()
        with self._timed("write"):
            self._writers.write(frame, poses)
        if self._overlay is not None or self._server is not None:
            self._draw(frame, poses)
        self._count += 1

    def _draw(self, frame: Frame, poses: Poses) -> None:
        with self._timed("draw"):
            image = draw(frame.image, poses, style=self._options.style)
        if self._server is not None:
            self._server.push(image)
        if self._overlay is not None:
            with self._timed("encode"):
                self._overlay.write(replace(frame, image=image))

    def _ends_segment(self, time_s: float) -> bool:
        return time_s - self._segment_start_s >= self._options.segment_s

    def _close(self) -> None:
        overlay = [] if self._overlay is None else self._overlay.close()  # the larger one first
        self.paths += self._writers.close() + overlay

    def _keep(self, error: BaseException) -> None:
        """Keep what was written under names that say that it is not all."""
        self.incomplete += self._writers.keep_incomplete()
        if self._overlay is not None:
            self.incomplete += self._overlay.keep_incomplete()
        if self.incomplete:
            names = ", ".join(path.name for path in self.incomplete)
            error.add_note(f"what was done until then is kept in {self._folder}: {names}")

    def _abort(self) -> None:
        if self._overlay is not None:
            self._overlay.abort()
        self._writers.abort()  # last: they were opened first and may have made the folder


class _Film:
    """The overlay of a video; the file is opened with the first frame, whose size it takes."""

    def __init__(self, options: OutputOptions, start: Path, reader: video.Reader) -> None:
        """start: its path without the suffix."""
        self._path = start.with_name(f"{start.name}{video.suffix_of(options.codec)}")
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

    def keep_incomplete(self) -> list[Path]:
        kept = None if self._writer is None else self._writer.keep_incomplete()
        return [] if kept is None else [kept]

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()


class _Images:
    """Overlays of images: `<stem>_overlay.jpg` for one, `<stem>_overlay/` for many."""

    def __init__(self, options: OutputOptions, start: Path, names: Sequence[str]) -> None:
        """start: its path without `_overlay`."""
        self._stems = Counter(Path(name).stem.casefold() for name in names)
        self._count = 0
        path = start.with_name(f"{start.name}_overlay{'.jpg' if len(names) == 1 else ''}")
        check_free(path, overwrite=options.overwrite)
        self._output: AtomicFile | AtomicFolder = (
            AtomicFile(path, "wb") if len(names) == 1 else AtomicFolder(path)
        )

    def write(self, frame: Frame) -> None:
        quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
        _, data = cv2.imencode(".jpg", cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR), quality)
        with explained(self._output.path):
            if isinstance(self._output, AtomicFile):
                self._output.file.write(data.tobytes())
            else:
                (self._output.folder / self._name(frame)).write_bytes(data.tobytes())
        self._count += 1

    def _name(self, frame: Frame) -> str:
        stem = Path(frame.name).stem
        twice = self._stems[stem.casefold()] > 1  # a.jpg and a.png
        return f"{stem}_{frame.index:06d}.jpg" if twice else f"{stem}.jpg"

    def close(self) -> list[Path]:
        if not self._count:
            self._output.abort()
            return []
        self._output.commit()
        return [self._output.path]

    def keep_incomplete(self) -> list[Path]:
        if not self._count:
            self._output.abort()
            return []
        return [self._output.keep_incomplete()]

    def abort(self) -> None:
        self._output.abort()
