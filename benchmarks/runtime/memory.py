"""Whether memory stays flat over a long video: `python -m benchmarks memory [--frames 3000]`.

The example clip, repeated without re-encoding until it is long enough, goes through `infer` with
every file format and the overlay. Prints the process's resident memory half-way and at the end,
and the slope of a line through the second half, by frames, so that load on the machine does not
matter. The first thousand frames do not count: buffers, row groups and the encoder's lookahead
fill.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

import posekit
from benchmarks.results_file import ROOT, command, save
from posekit.infer import Hooks, InferOptions, SourceSummary, run
from posekit.output.outputs import OutputOptions

FORMATS = ("jsonl", "coco", "csv", "parquet", "openpose", "labelstudio", "dlc")
FPS = 30


def repeated(clip: Path, path: Path, times: int) -> None:
    """The clip's packets, `times` times one after the other."""
    with av.open(str(path), "w") as target:
        stream = None
        shift = 0
        for _ in range(times):
            with av.open(str(clip)) as source:
                track = source.streams.video[0]
                stream = stream or target.add_stream_from_template(track)
                end = 0
                for packet in source.demux(track):
                    if packet.dts is None:
                        continue
                    packet.stream = stream
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    end = max(end, packet.pts + packet.duration)
                    target.mux(packet)
                shift = end


def resident_mb() -> float:
    """Resident memory of this process, MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def report(rows: NDArray[np.float64]) -> None:
    """Print and save: rows of frames, MB."""
    frames, memory = rows.T
    late = frames > frames[-1] / 2
    slope = float(np.polyfit(frames[late] / 1000, memory[late], 1)[0])
    figures = {
        "frames": int(frames[-1]),
        "resident_mb": {"first": memory[0], "middle": memory[late][0], "last": memory[-1]},
        "slope_mb_per_1000_frames": slope,
        "slope_mb_per_minute_of_video": slope * 60 * FPS / 1000,
    }
    print(
        f"{frames[-1]:.0f} frames: {memory[late][0]:.0f} MB half-way, {memory[-1]:.0f} MB at the "
        f"end; slope of the second half {slope:+.2f} MB per 1000 frames, "
        f"{figures['slope_mb_per_minute_of_video']:+.2f} MB per minute of video"
    )
    print(save("memory", command("memory"), 2, figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=3000)
    options = parser.parse_args()
    estimator = posekit.load("movenet-lightning", "cpu", 2, flip=False)
    rows: list[tuple[int, float]] = []

    def watch(summary: SourceSummary) -> None:
        if summary.frames % 50 == 0:
            rows.append((summary.frames, resident_mb()))
        if summary.frames >= options.frames:
            hooks.stop.set()

    hooks = Hooks(on_frame=watch)
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "long.mp4"
        repeated(ROOT / "examples" / "sports2d_demo.mp4", video, options.frames // 100)
        run(
            estimator,
            [str(video)],
            InferOptions(OutputOptions(Path(folder) / "out", FORMATS)),
            hooks=hooks,
        )
    report(np.array(rows))


if __name__ == "__main__":
    main()
