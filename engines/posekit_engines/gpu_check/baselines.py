"""The same work done in the usual ways, timed beside the kernels: torch, numpy, OpenCV.

Each rival's answer is compared before it is timed. What stays on the GPU is timed by events around
CALLS calls from Python, ours and torch alike, and ours also as part of a graph, as the GPU runtime
runs it; what ends on the host, by the host's clock.
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
CELLS = 1e-3  # between two ways to sum in float32; a quarter of a cell is what could differ


def torch_decode(torch: Any, maps: Any, mirrored: Any, *, mirror: Any) -> Any:
    """Heatmaps (N, K, h, w) and the mirrored crops' to x, y (cells), score, (N, K, 3), in torch.

    Flip merge with MSRA's shift of one column, argmax, a quarter of a cell towards the higher
    neighbour: vectorised, without a loop or a copy to the host.
    """
    n, k, height, width = maps.shape
    back = mirrored[:, mirror].flip(-1)
    back = torch.cat([back[..., :1], back[..., :-1]], -1)
    flat = (0.5 * (maps.float() + back.float())).view(n, k, -1)
    score, at = flat.max(-1)
    x, y = at % width, at // width
    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1) & (score > 0)
    middle = (y.clamp(1, height - 2) * width + x.clamp(1, width - 2)).unsqueeze(-1)

    def near(by: int) -> Any:
        return flat.gather(2, middle + by).squeeze(-1)

    right = torch.sign(near(1) - near(-1)) * 0.25 * inside
    down = torch.sign(near(width) - near(-width)) * 0.25 * inside
    return torch.stack([x + right, y + down, score], -1)


def decode(device: Device, effort: Effort) -> dict[str, Any]:
    """decode_flip against copy and numpy, and against torch where it reaches this GPU.

    Raises ParityError (a rival answers otherwise), KernelError, DeviceError.
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
    """How many times longer each rival takes than ours launched from Python, and in a graph."""
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
        stream.finish()
        return end.since_ms(start) / CALLS

    once()
    called = repeated(once, effort.seconds)
    graph = graph_ms(device, queue, launches_for(size, effort), seconds=effort.seconds)
    return {"posekit": quantiles(called), "posekit in a graph": quantiles(graph)}


def _copied(
    device: Device, maps: NDArray[Any], wanted: Float32, *, effort: Effort
) -> dict[str, Any]:
    """Both maps to pinned memory, then the codecs in numpy."""
    buffer, kept = device.uploaded(maps), device.pinned(maps.shape, maps.dtype)
    stream, persons = device.stream(), len(maps) // 2

    def work() -> Float32:
        buffer.download(kept, stream)
        stream.finish()
        return reference.decode_flip(kept[:persons], SPEC, mirrored=kept[persons:])

    check("copy + numpy", work(), wanted)
    return quantiles(repeated(wall_ms(work), effort.seconds))


def _torch(
    device: Device, maps: NDArray[Any], wanted: Float32, *, effort: Effort
) -> dict[str, Any]:
    """Eager and compiled, each waited for. Raises MissingExtraError, ParityError."""
    torch = cuda_torch()
    persons, place = len(maps) // 2, f"cuda:{device.info.index}"
    both = torch.from_numpy(maps).to(place)
    mirror = torch.tensor(SPEC.skeleton.mirror, device=place)

    def eager(one: Any, other: Any) -> Any:
        return torch_decode(torch, one, other, mirror=mirror)

    torch.compiler.reset()  # it compiles one function so many times only
    ways: dict[str, Callable[..., Any]] = {"eager torch": eager}
    ways["torch.compile"] = torch.compile(eager, dynamic=False)
    ways["torch.compile, CUDA graphs"] = torch.compile(eager, dynamic=False, mode="reduce-overhead")
    found: dict[str, Any] = {}
    with torch.cuda.device(device.info.index):
        for name, way in ways.items():
            parts = both.split(persons)
            found[name] = _torch_times(torch, way, parts, wanted=wanted, effort=effort)
    return found


def _torch_times(
    torch: Any, way: Callable[..., Any], maps: Any, *, wanted: Float32, effort: Effort
) -> dict[str, Any]:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def once() -> float:
        start.record()
        for _ in range(CALLS):
            way(*maps)
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / CALLS

    try:
        with torch.no_grad():
            for _ in range(3):  # compiled, warmed up and recorded
                answer = way(*maps).cpu().numpy()
            check("torch", in_pixels(answer, SPEC), wanted)
            return quantiles(repeated(once, effort.seconds))
    except RuntimeError as error:  # no C compiler or no Triton for torch.compile
        return {"not run": f"torch says: {str(error).strip().splitlines()[0][:200]}"}


def cuda_torch() -> Any:
    """The module torch, if it reaches a GPU. Raises MissingExtraError."""
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
    """x, y in cells to crop px; scores as they are."""
    points: Float32 = cells.astype(np.float32)
    points[..., :2] = spec.cells_to_crop(points[..., :2])
    return points


def check(name: str, answer: Float32, wanted: Float32) -> None:
    """Raises ParityError where a rival does not answer what the twin answers."""
    off = float(np.nan_to_num(np.abs(answer - wanted), nan=np.inf).max())
    if off > CELLS * max(SPEC.map_scale):
        raise ParityError(f"{name}: answers otherwise than the twin, by {off:.3g} px", off)


def crop(device: Device, effort: Effort) -> dict[str, Any]:
    """One frame up and crop_normalize, against OpenCV's crops, normalised, and their upload.

    Raises KernelError, DeviceError.
    """
    rows = {}
    for persons in effort.persons:
        ours = repeated(wall_ms(_frame_up(device, persons)), effort.seconds)
        theirs = repeated(wall_ms(_crops_up(device, persons)), effort.seconds)
        row: dict[str, Any] = {"posekit": quantiles(ours), "OpenCV + upload": quantiles(theirs)}
        ratio = row["OpenCV + upload"]["p50_us"] / row["posekit"]["p50_us"]
        rows[str(persons)] = {**row, "ratios": {"OpenCV + upload / posekit": round(ratio, 2)}}
    return {"rows": rows, "opencv_threads": cv2.getNumThreads()}


def _frame_up(device: Device, persons: int) -> Callable[[], None]:
    image, boxes = scene(persons)
    pinned, frame = device.pinned(image.shape, np.uint8), device.buffer(image.shape, np.uint8)
    pinned[:] = image
    table = frame_table([(frame.address, *FRAME, 3 * FRAME[0])], "rgb")
    frames = Frames(device.uploaded(table), device.uploaded(np.zeros(persons, np.int32)))
    to_frame = Warp.from_boxes(boxes, SPEC).inverse()
    matrices = device.uploaded(to_frame.matrix.astype(np.float32))
    width, height = SPEC.input_size
    crops = device.buffer((2 * persons, 3, height, width), np.float16)
    stream = device.stream()

    def work() -> None:
        frame.upload(pinned, stream)
        cut = Crops.of(crops, persons, flip=True)
        crop_normalize(device, frames, SPEC, crops=cut, to_frame=matrices, stream=stream)
        stream.finish()

    work()
    return work


def _crops_up(device: Device, persons: int) -> Callable[[], None]:
    image, boxes = scene(persons)
    matrices = Warp.from_boxes(boxes, SPEC).matrix
    width, height = SPEC.input_size
    pinned = device.pinned((2 * persons, 3, height, width), np.float16)
    crops, stream = device.buffer(pinned.shape, np.float16), device.stream()
    scale = (1 / np.array(SPEC.std)).astype(np.float32)
    bias = (-np.array(SPEC.mean) / np.array(SPEC.std)).astype(np.float32)

    def work() -> None:
        for n, matrix in enumerate(matrices):
            cut = cv2.warpAffine(image, matrix, SPEC.input_size, flags=cv2.INTER_LINEAR)
            planes = (cut * scale + bias).transpose(2, 0, 1)
            pinned[n] = planes
            pinned[persons + n] = planes[:, :, ::-1]
        crops.upload(pinned, stream)
        stream.finish()

    work()
    return work


def copy_rate(device: Device, effort: Effort) -> float:
    """Bytes a second read and written by a copy within the GPU. Raises MissingExtraError."""
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
