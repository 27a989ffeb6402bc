"""One source on its way through the estimator into its outputs."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from posekit import video
from posekit.atomic import AtomicFile
from posekit.errors import SourceError
from posekit.estimate import Estimator
from posekit.infer.summary import TOTAL, SourceSummary, sentence, summarize, write_summary
from posekit.output.mjpeg import MjpegServer
from posekit.output.outputs import OutputOptions, Outputs, summary_path
from posekit.types import Frame
from posekit.version import __version__
from posekit.write import Header


@dataclass(frozen=True)
class InferOptions:
    """output: what is written.  read: what is taken of each source.
    show: serve the overlay as MJPEG on 127.0.0.1 while it is made.
    """

    output: OutputOptions = OutputOptions()
    read: video.ReadOptions = video.ReadOptions()
    show: bool = False


@dataclass(frozen=True)
class Hooks:
    """How a caller follows a run: on_frame after each frame, on_show with the address to open,
    on_error with the reason why one of several sources could not be read.

    When `stop` is set, the frame in hand is finished and what was done is kept.
    """

    on_frame: Callable[[SourceSummary], None] = lambda _: None
    on_show: Callable[[str], None] = lambda _: None
    on_error: Callable[[str], None] = lambda _: None
    stop: threading.Event = field(default_factory=threading.Event)


def open_reader(
    estimator: Estimator, source: video.Source, options: video.ReadOptions
) -> video.Reader:
    """A source opened for a run: images that cannot be read are left out. Raises SourceError."""
    tolerant = replace(options, skip_unreadable=True)
    return video.read(source, options=tolerant, decoders=estimator.runtime.decoders)


@dataclass(frozen=True)
class Place:
    """What the jobs of a run share: the folder, the caller's hooks, and when it started.

    alone: there is one job.  started: by the performance counter, seconds.
    """

    folder: Path
    hooks: Hooks
    alone: bool
    started: float

    def summarize(
        self, estimator: Estimator, summaries: list[SourceSummary], *, stages: bool = True
    ) -> dict[str, Any]:
        """The summary of these sources until now; see `posekit.infer.summary.summarize`."""
        seconds = time.perf_counter() - self.started
        report = summarize(estimator, summaries, seconds, stages=stages)
        return report | {"output": str(self.folder), "interrupted": self.hooks.stop.is_set()}


@dataclass(eq=False)
class Job:
    """One source on its way through the estimator into its outputs.

    failure: why it could not be read, or not to its end.  report: its summary, once written.
    """

    estimator: Estimator
    options: InferOptions
    source: video.Source
    place: Place
    reader: video.Reader | None = None
    server: MjpegServer | None = None
    failure: SourceError | None = None
    report: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.summary = SourceSummary(self.source.name)

    def run(self) -> None:
        """Process the source; one that cannot be read is noted, any other error raised.

        Its summary keeps another run from its names meanwhile, and gets its own name last.
        """
        path = summary_path(self.place.folder, self.source)
        file = AtomicFile(path, overwrite=self.options.output.overwrite)
        with ExitStack() as at_end:
            at_end.callback(file.abort)  # does nothing once the file has a name
            try:
                done = self._processed()
            except BaseException:
                self._keep_incomplete(file)
                raise
            if done:
                self._report(file)
                file.commit()
            else:
                self._keep_incomplete(file)

    def _processed(self) -> bool:
        """Whether it was read to its end."""
        started = time.perf_counter()
        try:
            self._process(started)
        except SourceError as error:
            self.summary.error = sentence(error)
            if error is not self.failure:
                raise
            if not self.place.alone:  # the run raises it otherwise
                self.place.hooks.on_error(self.summary.error)
        except BaseException as error:
            self.summary.error = sentence(error)
            raise
        self.summary.seconds = round(time.perf_counter() - started, 3)
        self.summary.rate = round(self.summary.frames / max(self.summary.seconds, 1e-9), 2)
        return self.failure is None

    def _keep_incomplete(self, file: AtomicFile) -> None:
        if self.summary.outputs:
            self._report(file)
            file.keep_incomplete()

    def _report(self, file: AtomicFile) -> None:
        self.report = self.place.summarize(self.estimator, [self.summary], stages=self.place.alone)
        write_summary(file, self.report)

    def close(self) -> None:
        """Let the source go, also while a frame is waited for."""
        if self.reader is not None:
            self.reader.close()

    def _process(self, started: float) -> None:
        summary, before = self.summary, getattr(self.estimator.find, "whole_images", 0)
        with self.reader or self._opened() as reader:
            self.reader = reader
            summary.kind, summary.frame_count = reader.kind, reader.frame_count
            outputs = Outputs(
                self.options.output,
                self.place.folder,
                reader,
                header=self._header(reader),
                server=self.server,
                timed=self.estimator.timed,
            )
            try:
                with outputs:
                    self._follow(reader, outputs, started)
            finally:
                summary.outputs = [path.name for path in (*outputs.paths, *outputs.incomplete)]
                self._note(reader, before)

    def _opened(self) -> video.Reader:
        try:
            return open_reader(self.estimator, self.source, self.options.read)
        except SourceError as error:
            self.failure = error
            raise

    def _note(self, reader: video.Reader, before: int) -> None:
        """What the reader has found out by its end."""
        summary = self.summary
        summary.dropped, summary.reconnected = reader.dropped, reader.reconnected
        summary.decoder, summary.unreadable = reader.decoder, reader.unreadable
        self.estimator.times.setdefault("decode", deque(maxlen=10_000)).extend(reader.decode_s)
        summary.notes += reader.notes + self._whole_images(before)
        if self.place.alone and (self.place.folder / TOTAL).exists():
            summary.notes.append(f"{TOTAL} beside it is of an earlier run of several sources")

    def _follow(self, reader: video.Reader, outputs: Outputs, started: float) -> None:
        summary, ids = self.summary, set[int]()
        frames = self._frames(reader)
        for frame, poses in self.estimator.follow(frames, reader.kind):
            outputs.put(frame, poses)
            ids.update([] if poses.ids is None else poses.ids.tolist())
            summary.frames += 1
            summary.persons += len(poses)
            summary.ids = len(ids)
            summary.seconds = time.perf_counter() - started
            self.place.hooks.on_frame(summary)
            if self.place.hooks.stop.is_set():
                break

    def _frames(self, reader: video.Reader) -> Iterator[Frame]:
        """Its frames; a live source that is lost for good ends with a note, not an error."""
        count = 0
        try:
            for frame in reader:
                count += 1
                yield frame
        except SourceError as error:
            if reader.kind == "live" and count:
                self.summary.notes.append(str(error))
                return
            self.failure = error
            raise

    def _whole_images(self, before: int) -> list[str]:
        count = getattr(self.estimator.find, "whole_images", 0) - before
        return (
            [f"{count} images in which no person was found were estimated as a whole"]
            if count
            else []
        )

    def _header(self, reader: video.Reader) -> Header:
        bundle = self.estimator.runtime.bundle
        return Header(
            version=__version__,
            model=bundle.name,
            model_sha256=bundle.sha256,
            skeleton=self.estimator.runtime.spec.skeleton,
            source=reader.name,
            size=reader.size,
            fps=float(reader.fps),
            stored_size=reader.stored_size,
            pixel_aspect=f"{reader.pixel_aspect.numerator}:{reader.pixel_aspect.denominator}",
            start_time_s=reader.start_time_s,
            images=tuple(map(self.source.identity, self.source.paths)),
        )
