"""Time a model by stage, alone and together, with what is needed to repeat it.

Each stage runs by itself on the same frames: warm-up first, then until its share of the time is
spent. Throughput is the whole path on a video, where decoding and detecting run beside it.
"""

from __future__ import annotations

import contextlib
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from posekit import video
from posekit.bundle import Bundle, embedded
from posekit.drawing.draw import draw
from posekit.errors import InputError
from posekit.estimate import Estimator
from posekit.geometry import Warp
from posekit.inference import providers
from posekit.inference.session import open_session, usable_threads
from posekit.inputs.parsing import number
from posekit.tracking.smooth import OneEuro
from posekit.tracking.track import Tracker
from posekit.types import Boxes, Float32, Frame, Poses, UInt8
from posekit.video.encode import Encoding

STAGES = (
    "decode video",
    "detect",
    "crop",
    "network",
    "decode heatmaps",
    "track",
    "draw",
    "encode",
)
_PACKAGES = ("posekit", "numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu", "av")
_FILM = (640, 360, 60)  # width, height, frames of the generated video
_PERSONS = "movenet-lightning"  # whose check crops show them
_KEPT = 8  # frames in memory; the stages take turns on them


@dataclass(frozen=True)
class BenchOptions:
    """persons: how many in a frame, each a column.  cell_s: seconds for a stage and a column.
    least: runs of a stage at least.  warm_up: runs before.  frames: for throughput, at most.
    passes: of throughput.
    """

    persons: tuple[int, ...] = (1, 8, 32)
    cell_s: float = 1.5
    least: int = 3
    warm_up: int = 2  # the tracker loads its solver with the second frame
    frames: int = 60
    passes: int = 3

    def __post_init__(self) -> None:
        if not self.persons or min(self.persons) < 1 or max(self.persons) > 1000:
            raise InputError(
                f"--persons {self.persons}: wanted numbers from 1 to 1000, as in 1,8,32"
            )
        number(self.cell_s, name="bench: cell_s", low=0, high=3600)
        if self.cell_s <= 0 or min(self.least, self.frames, self.passes) < 1 or self.warm_up < 0:
            raise InputError("bench: wanted cell_s > 0, least, frames and passes >= 1")


def bench(
    estimator: Estimator, source: str | None = None, options: BenchOptions = BenchOptions()
) -> dict[str, Any]:
    """Milliseconds a person, by stage and number of persons, throughput, peak memory, machine.

    source: a video; None for a generated one of 640 x 360 with three persons in view.
    Stages without persons stand in the column "any". Raises SourceError, InputError.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = source or str(_film(folder / "generated.mp4"))
        frames, decode = _frames(path, options)
        stages: dict[str, dict[str, Any]] = {
            "decode video": {"any": _spread(decode)},
            "detect": {"any": _detect(estimator, frames, options)},
        }
        for count in options.persons:
            for stage, cell in _persons(estimator, frames, count, options=options).items():
                stages.setdefault(stage, {})[str(count)] = cell
        stages["encode"] = {"any": _encode(frames, folder, options)}
        throughput = _throughput(estimator, path, options)
    height, width = frames[0].image.shape[:2]
    return {
        "model": {"name": estimator.runtime.bundle.name, "sha256": estimator.runtime.bundle.sha256},
        "source": {"name": source or "generated", "size": [width, height]},
        "run": _run(estimator),
        "machine": _machine(),
        "ms_per_person": _per_person(stages),
        "stages_ms": {name: stages[name] for name in STAGES if name in stages},
        "throughput": throughput,
        "peak_memory_mb": peak_memory_mb(),
        "seconds": round(time.perf_counter() - started, 1),
    }


def ratios(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Median of `new` over that of `old` by stage and column, where both have it; less is faster.

    Throughput is frames a second: there more is faster. Raises InputError.
    """
    try:
        table = {
            stage: {
                column: round(cell["p50"] / _positive(old["stages_ms"][stage][column]["p50"]), 3)
                for column, cell in cells.items()
                if old["stages_ms"].get(stage, {}).get(column, {}).get("p50")
            }
            for stage, cells in new["stages_ms"].items()
        }
        before = _positive(old["throughput"]["frames_per_s"])
        after = new["throughput"]["frames_per_s"]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"compare: not what `posekit bench --json` writes ({error!r})") from error
    return {**table, "throughput": {"any": round(after / before, 3)}}


def _positive(value: object) -> float:
    return number(value, name="compare: a stored figure", low=1e-9, high=1e9)


def _per_person(stages: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """Milliseconds a person, crop and network, by how many there are in a frame."""
    return {
        count: round((stages["crop"][count]["p50"] + cell["p50"]) / int(count), 3)
        for count, cell in stages["network"].items()
    }


def _film(path: Path) -> Path:
    """Three photographed persons drift over moving waves with some noise."""
    width, height, count = _FILM
    persons = Bundle.open(embedded()[_PERSONS]).reference["crops"]
    size = persons.shape[1]
    noise = np.random.default_rng(0).integers(0, 40, (height, width, 3), np.uint8)
    y, x = np.mgrid[:height, :width]
    with video.VideoWriter(path, size=(width, height), fps=Fraction(30)) as writer:
        for index in range(count):
            wave = 90 + 80 * np.sin((x + 4 * index) / 23) * np.cos(y / 31)
            image = noise + wave[:, :, None].astype(np.uint8)
            for n, person in enumerate(persons):
                left, top = 10 + (size + 10) * n + index % 20, (height - size) // 2
                image[top : top + size, left : left + size] = person
            writer.write(image, index / 30)
    return path


def _frames(path: str, options: BenchOptions) -> tuple[list[Frame], list[float]]:
    """The first few frames, and the seconds that decoding each of many took."""
    kept = []
    with video.read(path) as reader:
        for index, frame in enumerate(reader):
            if index < _KEPT:
                kept.append(Frame(frame.image.copy(), frame.index, frame.time_s))
            if index + 1 >= options.frames:
                break
        # The first frame waits for the container to be opened.
        return kept, reader.decode_s[1:] or reader.decode_s


def _detect(estimator: Estimator, frames: list[Frame], options: BenchOptions) -> dict[str, float]:
    return _spread(_timed(lambda n: estimator.find(frames[n % len(frames)]), options))


def _persons(
    estimator: Estimator, frames: list[Frame], count: int, *, options: BenchOptions
) -> dict[str, dict[str, float]]:
    """The stages whose time grows with the number of persons."""
    runtime, image = estimator.runtime, frames[0].image
    boxes = _boxes(image, count)
    warp = Warp.from_boxes(boxes, runtime.spec)
    crops = runtime.crop(image, warp)
    points, scores = runtime.infer(crops)
    poses = Poses(warp.to_frame(points), np.maximum(scores, 0.5), boxes, runtime.spec.skeleton)
    canvas = image.copy()
    cells = {
        "crop": _timed(lambda n: runtime.crop(frames[n % len(frames)].image, warp), options),
        "network": _timed(lambda _: runtime.infer(crops), options),
        "track": _timed(_follower(poses), options),
        "draw": _timed(lambda _: draw(image, poses, out=canvas), options),
    }
    decode = _decode(estimator, crops, options)
    return {name: _spread(times) for name, times in (cells | decode).items()}


def _boxes(image: UInt8, count: int) -> Boxes:
    """`count` boxes of a standing person's shape, a third of the frame high, side by side."""
    height, width = image.shape[:2]
    high = height / 3
    centers = np.random.default_rng(count).uniform(0.1, 0.9, (count, 2)) * (width, height)
    half = np.array([high / 5, high / 2])
    xyxy: Float32 = np.concatenate([centers - half, centers + half], 1).astype(np.float32)
    return Boxes(xyxy)


def _follower(poses: Poses) -> Callable[[int], object]:
    """Track and smooth the same persons frame by frame."""
    tracker, smooth = Tracker(poses.skeleton), OneEuro()

    def follow(n: int) -> Poses:
        return smooth(tracker.update(poses, n / 30, detected=n % 4 == 0), n / 30)

    return follow


def _decode(estimator: Estimator, crops: UInt8, options: BenchOptions) -> dict[str, list[float]]:
    """What decoding adds inside the graph: with it minus without it, one thread, pair by pair.

    Part of "network", where it runs. Empty where the bundle lacks the graphs plain and maps, where
    crops never reach the host, and for more than 8, which would only repeat the figure.
    """
    bundle = estimator.runtime.bundle
    graphs = {"plain", "maps"} <= set(bundle.graphs)
    if not graphs or len(crops) > 8 or not isinstance(crops, np.ndarray):
        return {}
    device = "cpu" if estimator.runtime.provider.startswith("CPU") else "auto"
    whole, maps = (
        open_session(bundle.graphs[name], bundle.weights, device=device, threads=1)
        for name in ("plain", "maps")
    )
    added: list[float] = []

    def pair(_: int) -> None:
        start = time.perf_counter()
        maps.run(None, {"crops": crops})
        middle = time.perf_counter()
        whole.run(None, {"crops": crops})
        added.append(max(0.0, time.perf_counter() - middle - (middle - start)))

    runs = len(_timed(pair, options))
    return {"decode heatmaps": added[-runs:]}


def _encode(frames: list[Frame], folder: Path, options: BenchOptions) -> dict[str, float]:
    height, width = frames[0].image.shape[:2]
    encoding = Encoding(
        folder / "encoded.mp4",
        size=(width, height),
        fps=Fraction(30),
        options=video.WriteOptions(),
    )
    times = _timed(lambda n: encoding.add(frames[n % len(frames)].image, n / 30), options)
    encoding.finish()
    return _spread(times)


def _throughput(estimator: Estimator, path: str, options: BenchOptions) -> dict[str, Any]:
    """Frames a second of the whole path without writing, over several passes."""
    rates, persons, count = [], 0, 0
    for _ in range(options.passes):
        started, count, persons = time.perf_counter(), 0, 0
        with video.read(path) as reader:
            for _, poses in estimator.follow(reader, "video"):
                count += 1
                persons += len(poses)
                if count >= options.frames:
                    break
        rates.append(count / (time.perf_counter() - started))
    return {
        "frames_per_s": round(float(np.median(rates)), 2),
        "passes": [round(each, 2) for each in rates],
        "frames": count,
        "persons_per_frame": round(persons / max(count, 1), 2),
    }


def _timed(work: Callable[[int], object], options: BenchOptions) -> list[float]:
    """Seconds of each run of `work(n)`, without the warm-up, which one slow run may end."""
    started, warm = time.perf_counter(), 0
    while warm < options.warm_up and (not warm or time.perf_counter() - started < options.cell_s):
        work(warm)
        warm += 1
    times: list[float] = []
    until = time.perf_counter() + options.cell_s
    while len(times) < options.least or time.perf_counter() < until:
        start = time.perf_counter()
        work(warm + len(times))
        times.append(time.perf_counter() - start)
    return times


def _spread(times: Sequence[float]) -> dict[str, float]:
    """Milliseconds: percentiles, the least, and the middle half over the median."""
    ms = np.array(times) * 1e3
    low, p50, high, p95, p99 = np.percentile(ms, [25, 50, 75, 95, 99])
    return {
        "runs": len(ms),
        "min": round(float(ms.min()), 4),
        "p50": round(float(p50), 4),
        "p95": round(float(p95), 4),
        "p99": round(float(p99), 4),
        "spread": round(float((high - low) / p50), 3) if p50 else 0.0,
    }


def _run(estimator: Estimator) -> dict[str, Any]:
    runtime = estimator.runtime
    return {
        "provider": runtime.provider,
        "threads": runtime.threads,
        "flip": runtime.flip,
        "boxes": estimator.boxes_from,
        "detect_every": estimator.options.detect_every,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _machine() -> dict[str, Any]:
    return {
        "cpu": _cpu_name(),
        "threads_usable": usable_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": providers.versions(_PACKAGES),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_memory_mb() -> float | None:
    """Peak resident memory of this process, MB; None on systems without a figure."""
    if sys.platform == "win32":
        return None
    with contextlib.suppress(OSError):
        # Linux: ru_maxrss would count the process that started this one, too.
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024**2 if sys.platform == "darwin" else 1024), 1)
