"""The run over all sources: files one after another, live ones side by side.

Decoding, inference, writing and encoding run at the same time with bounded queues: the reader
and the video encoder have threads of their own, writing and drawing share one more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from posekit import video
from posekit.atomic import AtomicFile, check_apart, check_free
from posekit.detect import BoxFile
from posekit.errors import SourceError
from posekit.estimate import Estimator
from posekit.infer.job import Hooks, InferOptions, Job, Place, open_reader
from posekit.infer.summary import TOTAL, write_summary
from posekit.output.mjpeg import MjpegServer
from posekit.output.outputs import OutputOptions, output_folder, output_paths

_WAKE_S = 0.2  # between two checks whether a run is to stop, or is done


def run(
    estimator: Estimator,
    sources: Sequence[str],
    options: InferOptions = InferOptions(),
    *,
    hooks: Hooks | None = None,
) -> dict[str, Any]:
    """Process every source, each with a summary of its own; of several also write `summary.json`.

    Returns the summary of all. Files run one after another, live sources side by side, all on one
    model. A source that cannot be read is counted in `failed`, as are images, and the others go on;
    where none can be read, and after any other exception, what was written has names that end in
    `.incomplete`.  Raises SourceError.
    """
    hooks = hooks or Hooks()
    started = time.perf_counter()
    found = video.expand(sources)
    if isinstance(estimator.find, BoxFile):
        estimator.find.check_sources(found)
    with ExitStack() as stack:
        reader = stack.enter_context(_opened_first(estimator, found, options.read))
        folder = stack.enter_context(output_folder(options.output, found))
        _check_outputs(estimator, found, options.output, folder=folder)
        place = Place(folder, hooks, alone=len(found) == 1, started=started)
        jobs = [Job(estimator, options, source, place, reader=reader) for source in found]
        if place.alone:
            _run_all(jobs, options, hooks)
            return jobs[0].report or place.summarize(estimator, [jobs[0].summary])
        return _run_several(jobs, options, place)


@contextmanager
def _opened_first(
    estimator: Estimator, sources: Sequence[video.Source], options: video.ReadOptions
) -> Iterator[video.Reader | None]:
    """The reader of a single file: what cannot be read is reported before any output is looked at.

    Of several sources one that cannot be read stops no run, and a live one may take long to open.
    Raises SourceError.
    """
    if len(sources) != 1 or video.is_live(sources[0]):
        yield None
        return
    with open_reader(estimator, sources[0], options) as reader:
        yield reader


def _check_outputs(
    estimator: Estimator,
    sources: Sequence[video.Source],
    options: OutputOptions,
    *,
    folder: Path,
) -> None:
    """None of the outputs of any source is an input, and all names are free.

    Raises SourceError, InputError.
    """
    outputs = [each for one in sources for each in output_paths(options, folder, one)]
    if len(sources) > 1:
        outputs.append(folder / TOTAL)
    files = [path for one in sources for path in (one.paths or [one.target])]
    check_apart(outputs, [*estimator.files, *files])
    check_free(*outputs, overwrite=options.overwrite)


def _run_several(jobs: list[Job], options: InferOptions, place: Place) -> dict[str, Any]:
    """Every job, then the summary of all; unfinished it is kept where there are outputs."""
    file = AtomicFile(place.folder / TOTAL, overwrite=options.output.overwrite)
    summaries = [job.summary for job in jobs]
    with ExitStack() as on_failure:
        on_failure.callback(file.abort)
        try:
            _run_all(jobs, options, place.hooks)
        except BaseException:
            if any(each.outputs for each in summaries):
                write_summary(file, place.summarize(jobs[0].estimator, summaries))
                file.keep_incomplete()
            raise
        report = place.summarize(jobs[0].estimator, summaries)
        write_summary(file, report)
        file.commit()
        on_failure.pop_all()
    return report


def _serve(jobs: list[Job], stack: ExitStack) -> None:
    """An address for each live source, and one for all files."""
    shared: MjpegServer | None = None
    for job in jobs:
        live = video.is_live(job.source)
        if live or shared is None:
            job.server = stack.enter_context(MjpegServer())
            job.place.hooks.on_show(f"{job.source.name if live else 'files'}: {job.server.url}")
            shared = shared if live else job.server
        else:
            job.server = shared


def _run_all(jobs: list[Job], options: InferOptions, hooks: Hooks) -> None:
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


def _run_each(jobs: list[Job], stop: threading.Event) -> None:
    """Files one after another in this thread, live sources side by side in others."""
    live = [job for job in jobs if video.is_live(job.source)]
    with ThreadPoolExecutor(max(len(live), 1), "posekit-live") as pool:
        futures = [pool.submit(job.run) for job in live]
        try:
            for job in jobs:
                if job not in live and not stop.is_set():
                    job.run()
            for future in futures:
                # in pieces: a signal that arrives in another thread does not end a longer wait
                while not future.done():
                    wait([future], _WAKE_S)
                future.result()
        except BaseException:
            stop.set()  # or the pool would wait for the other live sources for ever
            raise


@contextmanager
def _closing(jobs: list[Job], stop: threading.Event) -> Iterator[None]:
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
