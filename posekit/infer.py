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
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from posekit import video
from posekit.atomic import check_free, write_atomic
from posekit.errors import InputError, SourceError
from posekit.estimate import Estimator
from posekit.mjpeg import MjpegServer
from posekit.outputs import OutputOptions, Outputs
from posekit.types import Frame
from posekit.version import __version__
from posekit.write import Header


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
    """What became of one source; `outputs` are names in the output folder.

    decoder: what decoded it: PyAV, OpenCV or the GPU's, by name.
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
    notes: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Hooks:
    """How a caller follows a run: on_frame after each frame, on_show with the address to look at;
    when `stop` is set, the frame in hand is finished and what was done is kept.
    """

    on_frame: Callable[[SourceSummary], None] = lambda _: None
    on_show: Callable[[str], None] = lambda _: None
    stop: threading.Event = field(default_factory=threading.Event)


def run(
    estimator: Estimator,
    sources: Sequence[str],
    options: InferOptions,
    *,
    hooks: Hooks | None = None,
) -> dict[str, Any]:
    """Process every source and write `summary.json`, which is also returned.

    Files run one after another, live sources side by side, all on one model. Raises SourceError.
    """
    hooks = hooks or Hooks()
    path = options.output.folder / "summary.json"
    check_free(path, overwrite=options.output.overwrite)
    started = time.perf_counter()
    found = video.expand(sources)
    _check_boxes(estimator, found)
    summaries = [SourceSummary(source.name) for source in found]
    with ExitStack() as stack:
        jobs = [
            _Job(estimator, options, source, summary, hooks)
            for source, summary in zip(found, summaries, strict=True)
        ]
        if options.show:
            _serve(jobs, stack)
        _run_all(jobs, hooks.stop)
    summary = _summary(estimator, summaries, time.perf_counter() - started)
    summary |= {"output": str(options.output.folder), "interrupted": hooks.stop.is_set()}
    write_atomic(path, json.dumps(summary, indent=1, ensure_ascii=False))
    return summary


def _check_boxes(estimator: Estimator, sources: Sequence[video.Source]) -> None:
    """A file of boxes numbers the frames of one video. Raises InputError for several."""
    videos = [source.name for source in sources if source.kind != "images"]
    if len(videos) > 1 and getattr(estimator.find, "is_exact", False):
        raise InputError(
            f"{estimator.boxes_from}: holds the boxes of one video, and {len(videos)} are given, "
            f"such as {videos[1]}: run them one by one"
        )


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


def _run_all(jobs: list[_Job], stop: threading.Event) -> None:
    """Files one after another in this thread, live sources side by side in others."""
    live = [job for job in jobs if video.is_live(job.source)]
    with ThreadPoolExecutor(max(len(live), 1), "posekit-live") as pool:
        futures = [pool.submit(job.run) for job in live]
        try:
            for job in jobs:
                if job not in live and not stop.is_set():
                    job.run()
            for future in futures:
                future.result()
        except BaseException:
            stop.set()  # or the pool would wait for the other live sources for ever
            raise


@dataclass(eq=False)
class _Job:
    """One source on its way through the estimator into its outputs."""

    estimator: Estimator
    options: InferOptions
    source: video.Source
    summary: SourceSummary
    hooks: Hooks
    server: MjpegServer | None = None

    def run(self) -> None:
        summary, started = self.summary, time.perf_counter()
        before = getattr(self.estimator.find, "whole_images", 0)
        decoders = self.estimator.runtime.decoders
        with video.read(self.source, options=self.options.read, decoders=decoders) as reader:
            summary.kind, summary.frame_count = reader.kind, reader.frame_count
            outputs = Outputs(
                self.options.output,
                reader,
                self._header(reader),
                server=self.server,
                timed=self.estimator.timed,
            )
            with outputs:
                self._follow(reader, outputs, started)
            summary.outputs = [path.name for path in outputs.paths]
            summary.dropped, summary.reconnected = reader.dropped, reader.reconnected
            summary.decoder = reader.decoder
            self.estimator.times.setdefault("decode", deque(maxlen=10_000)).extend(reader.decode_s)
            summary.notes += reader.notes + self._whole_images(before)
        summary.seconds = round(time.perf_counter() - started, 3)
        summary.rate = round(summary.frames / max(summary.seconds, 1e-9), 2)

    def _follow(self, reader: video.Reader, outputs: Outputs, started: float) -> None:
        summary, ids = self.summary, set[int]()
        frames = _while_it_lasts(reader, summary.notes)
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

    def _whole_images(self, before: int) -> list[str]:
        count = getattr(self.estimator.find, "whole_images", 0) - before
        return [f"{count} images without a found person were looked at whole"] if count else []

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


def _while_it_lasts(reader: video.Reader, notes: list[str]) -> Iterator[Frame]:
    """Frames of a reader; a live source that is lost for good ends with a note, not an error."""
    count = 0
    try:
        for frame in reader:
            count += 1
            yield frame
    except SourceError as error:
        if reader.kind != "live" or count == 0:
            raise
        notes.append(str(error))


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
        "stages": {stage: _stage(list(times)) for stage, times in sorted(estimator.times.items())},
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
