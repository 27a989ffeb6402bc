"""How cost grows: `python -m benchmarks scaling [--only NAME ...] [--minutes 30] [--again]`.

Lightning without the flip test, one thread, the example clip. CPU milliseconds are the minimum of
several rounds, so that other work on the machine affects them little.

- persons: one 640 x 360 frame with 1 to 32 given boxes.
- frame: the same box and the detector in frames of 640 x 360 to 3840 x 2160.
- streams: 1 to 4 files in one call of `infer` (one after another), no overlay; each row in a
  process of its own, so peak memory is its own. Live sources, side by side, are not measured.
- memory: the clip at 640 x 360, over and over for --minutes of wall time, with overlay and JSON
  Lines; the slope of resident memory over the second half.

Each row is saved as soon as it is measured and skipped the next time; --again measures it again.
--samples FILE prints the memory row of samples (seconds, frames, MB) recorded elsewhere.
Writes results/scaling.json.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import posekit
from benchmarks.results_file import FOLDER, ROOT, command, figures_of, save
from benchmarks.runtime.memory import repeated, resident_mb
from posekit import Boxes, Estimator, Frame, video
from posekit.infer import Hooks, InferOptions, SourceSummary, run
from posekit.output.outputs import OutputOptions

CLIP = ROOT / "examples" / "sports2d_demo.mp4"
SMALL = (640, 360)
PERSONS = (1, 2, 4, 8, 16, 32)
SIZES = (SMALL, (1280, 720), (1920, 1080), (3840, 2160))
STREAMS = (1, 2, 4)
FRAMES = 60  # of each stream


def cpu_seconds() -> float:
    """User and system time of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def best_ms(work: Callable[[], Any], rounds: int) -> float:
    """The minimum CPU milliseconds of a call."""
    work()
    best = float("inf")
    for _ in range(rounds):
        start = cpu_seconds()
        work()
        best = min(best, cpu_seconds() - start)
    return 1e3 * best


def lightning() -> Estimator:
    return posekit.load("movenet-lightning", "cpu", 1, flip=False)


def first_frame(size: tuple[int, int]) -> Any:
    """The clip's first frame in another size."""
    with video.read(CLIP) as reader:
        first = next(iter(reader)).image
    return np.ascontiguousarray(cv2.resize(first, size, interpolation=cv2.INTER_AREA))


def boxes_of(size: tuple[int, int], persons: int) -> Boxes:
    """Boxes side by side, overlapping where there are many."""
    width, height = size
    left = np.linspace(0, width * 0.8, persons)
    box = [left, left * 0 + height * 0.1, left + width * 0.15, left * 0 + height * 0.9]
    return Boxes(np.stack(box, 1).astype(np.float32))


def persons_row(persons: int) -> dict[str, float]:
    estimator, image, boxes = lightning(), first_frame(SMALL), boxes_of(SMALL, persons)
    frame_ms = best_ms(lambda: estimator(image, boxes), 15)
    return {"ms_a_frame": frame_ms, "ms_a_person": frame_ms / persons}


def frame_row(size: tuple[int, int]) -> dict[str, float]:
    estimator, image, boxes = lightning(), first_frame(size), boxes_of(size, 1)
    frame = Frame(image)
    return {
        "detect_ms": best_ms(lambda: estimator.find(frame), 10),
        "one_person_ms": best_ms(lambda: estimator(frame, boxes), 15),
    }


def small_clip(folder: Path, times: int) -> Path:
    """The clip at 640 x 360, H.264, `times` times one after the other."""
    short, path = folder / "short.mp4", folder / "long.mp4"
    with video.read(CLIP) as reader:
        writer = video.VideoWriter(short, size=SMALL, fps=30, options=video.WriteOptions())
        for frame in reader:
            writer.write(cv2.resize(frame.image, SMALL), frame.time_s)
        writer.close()
    repeated(short, path, times)
    return path


def streams_row(count: int) -> dict[str, Any]:
    """CPU and wall time per frame and peak memory of `count` files in one call."""
    with tempfile.TemporaryDirectory() as folder:
        clip = small_clip(Path(folder), 1)
        copies = [clip.with_name(f"clip{n}.mp4") for n in range(count)]
        for copy in copies:
            copy.write_bytes(clip.read_bytes())
        estimator = lightning()
        estimator(first_frame(SMALL))
        read = video.ReadOptions(end_s=FRAMES / 30)
        options = InferOptions(OutputOptions(Path(folder) / "out", overlay=False), read)
        cpu, wall = cpu_seconds(), time.perf_counter()
        summary = run(estimator, [str(copy) for copy in copies], options)
        cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    return {
        "frames": [each["frames"] for each in summary["sources"]],
        "cpu_ms_a_frame": 1e3 * cpu / summary["frames"],
        "wall_ms_a_frame": 1e3 * wall / summary["frames"],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def memory_row(minutes: float) -> dict[str, Any]:
    """Resident memory over `minutes` of wall time, sampled every 5 seconds."""
    rows: list[tuple[float, int, float]] = []
    start = time.perf_counter()

    def sample(summary: SourceSummary) -> None:
        now = time.perf_counter() - start
        if not rows or now - rows[-1][0] >= 5:
            rows.append((now, summary.frames, resident_mb()))
        if now >= 60 * minutes:
            hooks.stop.set()

    hooks = Hooks(on_frame=sample)
    with tempfile.TemporaryDirectory() as folder:
        # Long enough for 100 frames per second.
        clip = small_clip(Path(folder), max(2, round(minutes * 60 * 100 / 120)))
        start = time.perf_counter()
        options = InferOptions(OutputOptions(Path(folder) / "out"))
        run(lightning(), [str(clip)], options, hooks=hooks)
    return memory_figures(np.array(rows), minutes)


def memory_figures(rows: Any, minutes: float) -> dict[str, Any]:
    """The memory row of samples (N, 3): seconds, frames, MB."""
    seconds, frames, resident = rows.T
    late = seconds > seconds[-1] / 2
    return {
        "minutes_asked": minutes,
        "minutes_run": float(seconds[-1] / 60),
        "frames": int(frames[-1]),
        "resident_mb": {
            "first": float(resident[0]),
            "middle": float(resident[late][0]),
            "last": float(resident[-1]),
            "peak": float(resident.max()),
        },
        "slope_mb_a_minute": float(np.polyfit(seconds[late] / 60, resident[late], 1)[0]),
        "slope_mb_per_1000_frames": float(np.polyfit(frames[late] / 1e3, resident[late], 1)[0]),
        # One sample a minute, for a plot.
        "samples": [
            [round(float(t) / 60, 2), int(n), round(float(mb), 1)]
            for t, n, mb in rows[:: max(1, len(rows) // 60)]
        ],
    }


def works(minutes: float) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every row by its name, `<part> <what>`."""
    rows: dict[str, Callable[[], dict[str, Any]]] = {}
    for persons in PERSONS:
        rows[f"persons {persons}"] = functools.partial(persons_row, persons)
    for size in SIZES:
        rows[f"frame {size[0]}x{size[1]}"] = functools.partial(frame_row, size)
    for count in STREAMS:
        rows[f"streams {count} files"] = functools.partial(streams_row, count)
    rows["memory"] = functools.partial(memory_row, minutes)
    return rows


def measured(name: str, minutes: float) -> dict[str, Any]:
    """One row, in a process of its own."""
    row_of = [sys.executable, "-m", "benchmarks", "scaling", "--row", name]
    done = subprocess.run(
        [*row_of, "--minutes", str(minutes)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip()}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", help="persons, frame, streams, memory")
    parser.add_argument("--minutes", type=float, default=30.0, help="length of the memory row")
    parser.add_argument("--again", action="store_true", help="measure existing rows again")
    parser.add_argument("--samples", type=Path, help="JSON array of [seconds, frames, MB]")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.samples:
        samples = np.array(json.loads(options.samples.read_text()))
        print(json.dumps(memory_figures(samples, options.minutes)))
        return
    rows = works(options.minutes)
    if options.row:
        cv2.setNumThreads(1)
        print(json.dumps(rows[options.row]()))
        return
    for name in rows:
        if options.only and name.split()[0] not in options.only:
            continue
        if name in figures_of("scaling") and not options.again:
            continue
        row = measured(name, options.minutes)
        shown = {key: value for key, value in row.items() if key != "samples"}
        print(name, shown, flush=True)
        # Read again: another call may have added rows while this one was measured.
        save("scaling", command("scaling"), 1, figures_of("scaling") | {name: row})
    print(f"rows are in {FOLDER.name}/scaling.json")


if __name__ == "__main__":
    main()
