"""Baselines of the kernels, timed beside them: the same work in torch, numpy and OpenCV.

Each baseline's output is checked before it is timed. Work that stays on the GPU is timed by events
around CALLS calls from Python, for ours and torch alike, and ours also in a CUDA graph, as the GPU
runtime runs it; work that ends on the host by the host's clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posekit.errors import MissingExtraError, ParityError
from posekit.geometry import Warp
from posekit.types import Float32, ModelSpec
from posekit_engines.cuda.device import Device
from posekit_engines.gpu_check.timing import (
    FRAME,
    SPEC,
    Effort,
    decode_queue,
    graph_ms,
    hard_heatmaps,
    launches_for,
    quantiles,
    repeated,
    scene,
    wall_ms,
)
from posekit_engines.ops import reference
from posekit_engines.ops.crop_normalize import Crops, Frames, crop_normalize, frame_table

CALLS = 20
TOLERANCE_CELLS = 1e-3  # orders of float32 sums differ by less; a wrong step by a quarter of a cell


def torch_decode(torch: Any, maps: Any, mirrored: Any, *, mirror: Any) -> Any:
    """Heatmaps (N, K, h, w) and the mirrored crops' to x, y (cells), score, (N, K, 3), in torch.

    Flip merge with MSRA's shift of one column, argmax, a quarter of a cell toward the higher
    neighbor: vectorized, without a loop or a copy to the host.
    """
    n, k, height, width = maps.shape
    back = mirrored[:, mirror].flip(-1)
    back = torch.cat([back[..., :1], back[..., :-1]], -1)
    flat = (0.5 * (maps.float() + back.float())).view(n, k, -1)
    score, at = flat.max(-1)
    x, y = at % width, at // width
    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1) & (score > 0)
    middle = (y.clamp(1, height - 2) * width + x.clamp(1, width - 2)).unsqueeze(-1)

    def neighbor(offset: int) -> Any:
        return flat.gather(2, middle + offset).squeeze(-1)

    right = torch.sign(neighbor(1) - neighbor(-1)) * 0.25 * inside
    down = torch.sign(neighbor(width) - neighbor(-width)) * 0.25 * inside
    return torch.stack([x + right, y + down, score], -1)


def decode(device: Device, effort: Effort) -> dict[str, Any]:
    """decode_flip against copy + numpy, and against torch where it has CUDA.

    Raises ParityError (a baseline's output differs), KernelError, DeviceError.
    """
    rows, missing = {}, ""
    for persons in effort.persons:
        maps = hard_heatmaps(persons, SPEC)
        wanted = reference.decode_flip(maps[:persons], SPEC, mirrored=maps[persons:])
        row = {
            **_ours(device, persons, effort=effort),
            "copy + numpy": _copied(device, maps, wanted, effort=effort),
        }
        try:
            row |= _torch(device, maps, wanted, effort=effort)
        except MissingExtraError as error:
            missing = str(error)
        rows[str(persons)] = {**row, "ratios": _ratios(row)}
    return {"rows": rows, **({"not run": f"torch: {missing}"} if missing else {})}


def _ratios(row: dict[str, Any]) -> dict[str, float]:
    """Time of each baseline over ours launched from Python, and over ours in a graph."""
    found = {}
    for name, times in row.items():
        if name.startswith("posekit") or "p50_us" not in times:
            continue
        for ours in ("posekit", "posekit in a graph"):
            found[f"{name} / {ours}"] = round(times["p50_us"] / row[ours]["p50_us"], 2)
    return found


def _ours(device: Device, persons: int, *, effort: Effort) -> dict[str, Any]:
    queue, size = decode_queue(device, persons, 1)
    stream, start, end = device.stream(), device.event(), device.event()

    def once() -> float:
        start.record(stream)
        for n in range(CALLS):
            queue(n, stream)
        end.record(stream)
        stream.synchronize()
        return end.since_ms(start) / CALLS

    once()
    called = repeated(once, effort.seconds)
    graph = graph_ms(device, queue, launches_for(size, effort), seconds=effort.seconds)
    return {"posekit": quantiles(called), "posekit in a graph": quantiles(graph)}


def _copied(
    device: Device, maps: NDArray[Any], wanted: Float32, *, effort: Effort
) -> dict[str, Any]:
    """Copy both maps to pinned memory, then decode with numpy."""
    buffer, host = device.upload(maps), device.pinned(maps.shape, maps.dtype)
    stream, persons = device.stream(), len(maps) // 2

    def work() -> Float32:
        buffer.download(host, stream)
        stream.synchronize()
        return reference.decode_flip(host[:persons], SPEC, mirrored=host[persons:])

    check("copy + numpy", work(), wanted)
    return quantiles(repeated(wall_ms(work), effort.seconds))


def _torch(
    device: Device, maps: NDArray[Any], wanted: Float32, *, effort: Effort
) -> dict[str, Any]:
    """Eager and compiled, each synchronized. Raises MissingExtraError, ParityError."""
    torch = cuda_torch()
    persons, place = len(maps) // 2, f"cuda:{device.info.index}"
    both = torch.from_numpy(maps).to(place)
    mirror = torch.tensor(SPEC.skeleton.mirror, device=place)

    def eager(one: Any, other: Any) -> Any:
        return torch_decode(torch, one, other, mirror=mirror)

    torch.compiler.reset()  # a function is recompiled a limited number of times
    variants: dict[str, Callable[..., Any]] = {"eager torch": eager}
    variants["torch.compile"] = torch.compile(eager, dynamic=False)
    variants["torch.compile, CUDA graphs"] = torch.compile(
        eager, dynamic=False, mode="reduce-overhead"
    )
    found: dict[str, Any] = {}
    with torch.cuda.device(device.info.index):
        for name, variant in variants.items():
            pair = both.split(persons)
            found[name] = _torch_times(torch, variant, pair, wanted=wanted, effort=effort)
    return found


def _torch_times(
    torch: Any, variant: Callable[..., Any], maps: Any, *, wanted: Float32, effort: Effort
) -> dict[str, Any]:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def once() -> float:
        start.record()
        for _ in range(CALLS):
            variant(*maps)
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / CALLS

    try:
        with torch.no_grad():
            for _ in range(3):  # compiled, warmed up and recorded
                output = variant(*maps).cpu().numpy()
            check("torch", in_pixels(output, SPEC), wanted)
            return quantiles(repeated(once, effort.seconds))
    except RuntimeError as error:  # no C compiler or no Triton for torch.compile
        return {"not run": f"torch: {str(error).strip().splitlines()[0][:200]}"}


def cuda_torch() -> Any:
    """The module torch, if it can use CUDA. Raises MissingExtraError."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(f"torch is not installed ({error}); pip install torch") from error
    if not torch.cuda.is_available():
        raise MissingExtraError(
            f"torch {torch.__version__} has no CUDA here; install a torch that is built for CUDA"
        )
    return torch


def in_pixels(cells: NDArray[Any], spec: ModelSpec) -> Float32:
    """x, y from cells to crop px; scores unchanged."""
    points: Float32 = cells.astype(np.float32)
    points[..., :2] = spec.cells_to_crop(points[..., :2])
    return points


def check(name: str, output: Float32, wanted: Float32) -> None:
    """Raises ParityError where a baseline's output deviates from the numpy reference."""
    deviation = float(np.nan_to_num(np.abs(output - wanted), nan=np.inf).max())
    if deviation > TOLERANCE_CELLS * max(SPEC.map_scale):
        raise ParityError(
            f"{name}: deviates from the numpy reference by {deviation:.3g} px", deviation
        )


def crop(device: Device, effort: Effort) -> dict[str, Any]:
    """Frame upload and crop_normalize, against OpenCV's normalized crops and their upload.

    Raises KernelError, DeviceError.
    """
    rows = {}
    for persons in effort.persons:
        ours = repeated(wall_ms(_upload_and_crop(device, persons)), effort.seconds)
        theirs = repeated(wall_ms(_crop_and_upload(device, persons)), effort.seconds)
        row: dict[str, Any] = {"posekit": quantiles(ours), "OpenCV + upload": quantiles(theirs)}
        ratio = row["OpenCV + upload"]["p50_us"] / row["posekit"]["p50_us"]
        rows[str(persons)] = {**row, "ratios": {"OpenCV + upload / posekit": round(ratio, 2)}}
    return {"rows": rows, "opencv_threads": cv2.getNumThreads()}


def _upload_and_crop(device: Device, persons: int) -> Callable[[], None]:
    image, boxes = scene(persons)
    pinned, frame = device.pinned(image.shape, np.uint8), device.buffer(image.shape, np.uint8)
    pinned[:] = image
    table = frame_table([(frame.address, *FRAME, 3 * FRAME[0])], "rgb")
    frames = Frames(device.upload(table), device.upload(np.zeros(persons, np.int32)))
    to_frame = Warp.from_boxes(boxes, SPEC).inverse()
    matrices = device.upload(to_frame.matrix.astype(np.float32))
    width, height = SPEC.input_size
    crops = device.buffer((2 * persons, 3, height, width), np.float16)
    stream = device.stream()

    def work() -> None:
        frame.upload(pinned, stream)
        output = Crops.of(crops, persons, flip=True)
        crop_normalize(device, frames, SPEC, crops=output, to_frame=matrices, stream=stream)
        stream.synchronize()

    work()
    return work


def _crop_and_upload(device: Device, persons: int) -> Callable[[], None]:
    image, boxes = scene(persons)
    matrices = Warp.from_boxes(boxes, SPEC).matrix
    width, height = SPEC.input_size
    pinned = device.pinned((2 * persons, 3, height, width), np.float16)
    crops, stream = device.buffer(pinned.shape, np.float16), device.stream()
    scale = (1 / np.array(SPEC.std)).astype(np.float32)
    bias = (-np.array(SPEC.mean) / np.array(SPEC.std)).astype(np.float32)

    def work() -> None:
        for n, matrix in enumerate(matrices):
            cropped = cv2.warpAffine(image, matrix, SPEC.input_size, flags=cv2.INTER_LINEAR)
            planes = (cropped * scale + bias).transpose(2, 0, 1)
            pinned[n] = planes
            pinned[persons + n] = planes[:, :, ::-1]
        crops.upload(pinned, stream)
        stream.synchronize()

    work()
    return work


def copy_rate(device: Device, effort: Effort) -> float:
    """Bytes per second read and written by a copy within the GPU. Raises MissingExtraError."""
    torch = cuda_torch()
    size = effort.pool_bytes // 2
    source = torch.zeros(size, dtype=torch.uint8, device=f"cuda:{device.info.index}")
    target = torch.empty_like(source)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def once() -> float:
        start.record()
        target.copy_(source)
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end))

    with torch.cuda.device(device.info.index):
        once()
        found = repeated(once, effort.seconds)
    return float(2 * size / (1e-3 * np.median(found)))
