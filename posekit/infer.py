"""The job that `posekit infer` runs: sources in; keypoint files, overlays and a summary out.

Decoding, inference, writing and encoding run at the same time with bounded queues: the reader
and the video encoder have threads of their own, writing and drawing share one more.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from posekit import video
from posekit.atomic import AtomicFile, check_apart, check_free, explained
from posekit.detect import BoxFile
from posekit.errors import PosekitError, SourceError
from posekit.estimate import Estimator
from posekit.output.mjpeg import MjpegServer
from posekit.output.outputs import OutputOptions, Outputs, output_paths
from posekit.types import Frame
from posekit.version import __version__
from posekit.write import Header

_WAKE_S = 0.2  # between two checks whether a run is to stop, or is done


@dataclass(frozen=True)
class InferOptions:
    """output: what is written.  read: what is taken of each source.
    show: serve the overlay as MJPEG on 127.0.0.1 while it is made.
    """

    output: OutputOptions
    read: video.ReadOptions = video.ReadOptions()
    show: bool = False


@dataclass
class SourceSummary:
    """The result for one source; `outputs` are names in the output folder.

    decoder: what decoded it: PyAV, OpenCV or the GPU's, by name.  unreadable: images left out.
    error: why it could not be read, or not to its end; None: it was.
    """

    source: str
    kind: str = ""
    decoder: str = ""
    frames: int = 0
    frame_count: int | None = None
    persons: int = 0
    ids: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    dropped: int = 0
    reconnected: int = 0
    unreadable: int = 0
    error: str | None = None
    notes: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


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


def run(
    estimator: Estimator,
    sources: Sequence[str],
    options: InferOptions,
    *,
    hooks: Hooks | None = None,
) -> dict[str, Any]:
    """Process every source and write `summary.json`, which is also returned.

    Files run one after another, live sources side by side, all on one model. A source that cannot
    be read is counted in `failed`, as are images, and the others go on; where none can be read,
    and after any other exception, what was written has names that end in `.incomplete`.
    Raises SourceError.
    """
    hooks = hooks or Hooks()
    started = time.perf_counter()
    found = video.expand(sources)
    if isinstance(estimator.find, BoxFile):
        estimator.find.check_sources(found)
    file = _claimed(estimator, found, options.output)
    summaries = [SourceSummary(source.name) for source in found]

    def save() -> dict[str, Any]:
        summary = _summary(estimator, summaries, time.perf_counter() - started)
        summary |= {"output": str(options.output.folder), "interrupted": hooks.stop.is_set()}
        with explained(file.path):
            file.file.write(json.dumps(summary, indent=1, ensure_ascii=False))
        return summary

    with ExitStack() as on_failure:
        on_failure.callback(file.abort)
        jobs = [
            _Job(estimator, options, source, summary, hooks)
            for source, summary in zip(found, summaries, strict=True)
        ]
        try:
            _run_all(jobs, options, hooks)
        except BaseException:
            if any(each.outputs for each in summaries):
                save()
                file.keep_incomplete()
            raise
        summary = save()
        file.commit()
        on_failure.pop_all()
    return summary


def _claimed(
    estimator: Estimator, sources: Sequence[video.Source], options: OutputOptions
) -> AtomicFile:
    """The summary in the making, which keeps another run out of the folder.

    Every output of every source is checked first: none is an input, and all names are free.
    Raises SourceError, InputError.
    """
    path = options.folder / "summary.json"
    outputs = [path, *(each for one in sources for each in output_paths(options, one))]
    files = [path for one in sources for path in (one.paths or [one.target])]
    check_apart(outputs, [*estimator.files, *files])
    check_free(*outputs, overwrite=options.overwrite)
    return AtomicFile(path, overwrite=options.overwrite)


def _serve(jobs: list[_Job], stack: ExitStack) -> None:
    """An address for each live source, and one for all files."""
    shared: MjpegServer | None = None
    for job in jobs:
        live = video.is_live(job.source)
        if live or shared is None:
            job.server = stack.enter_context(MjpegServer())
            job.hooks.on_show(f"{job.source.name if live else 'files'}: {job.server.url}")
            shared = shared if live else job.server
        else:
            job.server = shared


def _run_all(jobs: list[_Job], options: InferOptions, hooks: Hooks) -> None:
    """Every job; then raises where no source could be read. Raises SourceError."""
    with ExitStack() as stack:
        if options.show:
            _serve(jobs, stack)
        stack.enter_context(_closing(jobs, hooks.stop))
        _run_each(jobs, hooks.stop)
    failed = [job for job in jobs if job.failure is not None]
    if failed and not any(job.summary.frames for job in jobs):
        if len(jobs) > 1:
            raise SourceError(f"none of the {len(jobs)} sources could be read")
        raise failed[0].failure or AssertionError("a failed job has a failure")


def _run_each(jobs: list[_Job], stop: threading.Event) -> None:
    """Files one after another in this thread, live sources side by side in others."""
    live = [job for job in jobs if video.is_live(job.source)]
    with ThreadPoolExecutor(max(len(live), 1), "posekit-live") as pool:
        futures = [pool.submit(job.run, alone=len(jobs) == 1) for job in live]
        try:
            for job in jobs:
                if job not in live and not stop.is_set():
                    job.run(alone=len(jobs) == 1)
            for future in futures:
                # in pieces: a signal that arrives in another thread does not end a longer wait
                while not future.done():
                    wait([future], _WAKE_S)
                future.result()
        except BaseException:
            stop.set()  # or the pool would wait for the other live sources for ever
            raise


@contextmanager
def _closing(jobs: list[_Job], stop: threading.Event) -> Iterator[None]:
    """While the block runs, close all readers once `stop` is set: some wait for frames for long."""
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if stop.wait(_WAKE_S):
                for job in jobs:
                    job.close()
                done.wait(_WAKE_S)

    thread = threading.Thread(target=watch, name="posekit-stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@dataclass(eq=False)
class _Job:
    """One source on its way through the estimator into its outputs.

    failure: why it could not be read, or not to its end.
    """

    estimator: Estimator
    options: InferOptions
    source: video.Source
    summary: SourceSummary
    hooks: Hooks
    server: MjpegServer | None = None
    failure: SourceError | None = None
    reader: video.Reader | None = None

    def run(self, *, alone: bool) -> None:
        """Process the source; one that cannot be read is noted, any other error raised."""
        started = time.perf_counter()
        try:
            self._process(started)
        except SourceError as error:
            self.summary.error = _sentence(error)
            if error is not self.failure:
                raise
            if not alone:  # `run` raises it otherwise
                self.hooks.on_error(self.summary.error)
        except BaseException as error:
            self.summary.error = _sentence(error)
            raise
        self.summary.seconds = round(time.perf_counter() - started, 3)
        self.summary.rate = round(self.summary.frames / max(self.summary.seconds, 1e-9), 2)

    def close(self) -> None:
        """Let the source go, also while a frame is waited for."""
        if self.reader is not None:
            self.reader.close()

    def _process(self, started: float) -> None:
        summary, before = self.summary, getattr(self.estimator.find, "whole_images", 0)
        with self._opened() as reader:
            self.reader = reader
            summary.kind, summary.frame_count = reader.kind, reader.frame_count
            outputs = Outputs(
                self.options.output,
                reader,
                self._header(reader),
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
        options = replace(self.options.read, skip_unreadable=True)
        decoders = self.estimator.runtime.decoders
        try:
            return video.read(self.source, options=options, decoders=decoders)
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
            self.hooks.on_frame(summary)
            if self.hooks.stop.is_set():
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


def _sentence(error: BaseException) -> str:
    kind = "" if isinstance(error, PosekitError) else f"{type(error).__name__}: "
    return kind + "; ".join([str(error), *getattr(error, "__notes__", [])])


def _summary(
    estimator: Estimator, summaries: list[SourceSummary], seconds: float
) -> dict[str, Any]:
    runtime = estimator.runtime
    frames = sum(each.frames for each in summaries)
    finder = estimator.find
    return {
        "posekit": __version__,
        "model": {"name": runtime.bundle.name, "sha256": runtime.bundle.sha256},
        "boxes": {
            "from": estimator.boxes_from,
            "sha256": getattr(finder, "sha256", None),
            "provider": getattr(finder, "provider", None),
            "notes": getattr(finder, "notes", []),
        },
        "runtime": {
            "provider": runtime.provider,
            "device": runtime.device,
            "threads": runtime.threads,
            "flip": runtime.flip,
            "notes": runtime.notes,
        },
        "frames": frames,
        "persons": sum(each.persons for each in summaries),
        "seconds": round(seconds, 3),
        "rate": round(frames / max(seconds, 1e-9), 2),
        "dropped": sum(each.dropped for each in summaries),
        "failed": sum(each.unreadable + (each.error is not None) for each in summaries),
        "stages": {
            stage: _stage(list(times)) for stage, times in sorted(estimator.times.items()) if times
        },
        "sources": [asdict(each) for each in summaries],
    }


def _stage(times: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(times, [50, 95]) * 1e3
    return {
        "calls": len(times),
        "total_s": round(float(np.sum(times)), 3),
        "p50_ms": round(float(p50), 3),
        "p95_ms": round(float(p95), 3),
    }
