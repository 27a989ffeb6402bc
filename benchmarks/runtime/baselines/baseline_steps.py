"""Cropping and decoding of rtmlib and transformers, run in their own environment.

`run_baselines` starts this file with .baselines' Python (`scripts/baselines` makes it); arrays are
exchanged as .npz. Times are CPU seconds of the calling thread, the minimum of many calls. Each side
also times the bare calls, so that a ratio to them is within one process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

PYTHON = Path(__file__).resolve().parents[3] / ".baselines" / "bin" / "python"
MISSING = "baselines: not measured; scripts/baselines makes their environment"
Arrays = dict[str, NDArray[Any]]


def run_baselines(task: str, arrays: Arrays) -> Arrays:
    """Outputs of the baselines for `arrays`, and their seconds; {} where they are not installed."""
    if not PYTHON.exists():
        return {}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/in.npz", **arrays)
        env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        subprocess.run([str(PYTHON), __file__, task, folder], check=True, env=env)
        with np.load(f"{folder}/out.npz") as outputs:
            return dict(outputs)


def best_times(works: dict[str, Callable[[], Any]], seconds: float = 3.0) -> dict[str, float]:
    """The minimum CPU seconds of each call; they alternate, so that all meet the same load."""
    best = dict.fromkeys(works, float("inf"))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or float("inf") in best.values():
        for name, work in works.items():
            start = time.thread_time()
            work()
            best[name] = min(best[name], time.thread_time() - start)
    return best


def bare_decode(maps: NDArray[Any], mirrored: NDArray[Any]) -> NDArray[Any]:
    """The addition and np.argmax alone: what every decoder with a flip test needs."""
    rows = maps.shape[0] * maps.shape[1]
    return np.add(maps, mirrored).reshape(rows, -1).argmax(1)


def bare_crop(image: NDArray[Any], matrices: NDArray[Any], size: tuple[int, int]) -> None:
    """cv2.warpAffine alone, into new images."""
    for matrix in matrices:
        cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR)


# --- from here on in the baselines' environment ---------------------------------------------------


def _rtmlib() -> Any:
    from rtmlib.tools.pose_estimation.vitpose import ViTPose

    pose = object.__new__(ViTPose)  # without a network: its file plays no part here
    pose.model_input_size = (192, 256)
    pose.mean, pose.std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    return pose


def _vitpose() -> Any:
    from transformers.models.vitpose.image_processing_pil_vitpose import VitPoseImageProcessorPil

    return VitPoseImageProcessorPil()


def _decode(inputs: Arrays) -> tuple[dict[str, Callable[[], Any]], Callable[[str], Any]]:
    """Their decoders, with the cells of a map as the pixels of the frame.

    rtmlib blurs its input in place, so each call gets a copy (about 1 % of its time).
    """
    maps, mirrored = inputs["maps"], inputs["mirrored"]
    count, (height, width) = len(maps), maps.shape[2:]
    center, size = np.array([width - 1, height - 1]) / 2, np.array([width - 1, height - 1])
    rtmlib, vitpose = _rtmlib(), _vitpose()
    centers, scales = np.tile(center, (count, 1)), np.tile(size / 200, (count, 1))

    def decode_rtmlib() -> Any:
        people = [
            rtmlib.postprocess([maps[n : n + 1].copy()], center, size)[0] for n in range(count)
        ]
        return np.concatenate(people)

    works = {
        "rtmlib": decode_rtmlib,
        "transformers": lambda: vitpose.keypoints_from_heatmaps(maps, centers, scales)[0],
        "bare": lambda: bare_decode(maps, mirrored),
    }
    return works, lambda name: works[name]()


def _crop(inputs: Arrays) -> tuple[dict[str, Callable[[], Any]], Callable[[str], Any]]:
    """Their preprocessing of RGB crops: float, normalized; planar with transformers."""
    image, boxes, matrices = inputs["image"], inputs["boxes"], inputs["matrices"]
    sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    rtmlib, vitpose = _rtmlib(), _vitpose()
    works = {
        "rtmlib": lambda: np.stack([rtmlib.preprocess(image, box)[0] for box in boxes]),
        "transformers": lambda: np.stack(
            vitpose.preprocess([image], [sizes.tolist()], return_tensors="np")["pixel_values"]
        ).transpose(0, 2, 3, 1),
        "bare": lambda: bare_crop(image, matrices, (192, 256)),
    }
    return works, lambda name: works[name]()


def main() -> None:
    cv2.setNumThreads(1)
    task, folder = sys.argv[1:]
    with np.load(f"{folder}/in.npz") as arrays:
        works, result = {"decode": _decode, "crop": _crop}[task](dict(arrays))
    outputs = {name: result(name) for name in works if name != "bare"}
    # The bare calls alone: after the baselines' large arrays each new one costs page faults.
    times = best_times({"bare": works.pop("bare")}, 1.0) | best_times(works, 8.0)
    outputs |= {f"{name}_s": np.float64(seconds) for name, seconds in times.items()}
    np.savez(f"{folder}/out.npz", **outputs)


if __name__ == "__main__":
    main()
