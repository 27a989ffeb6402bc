"""TensorRT plans kept in a bundle or on disk: found where they fit this machine, else built anew.

Whether one fits is told by its metadata, before anything is handed to TensorRT. Finding one needs
neither torch nor onnx; only building does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from posekit.bundle import Bundle
from posekit.errors import DeviceError, MissingExtraError
from posekit_engines import cuda, nvrtc

Kind = Literal["raw", "points", "detect"]
Library = Literal["auto", "tensorrt", "rtx"]
Metadata = Mapping[str, Any]

FORMAT = 1
"""Of the graphs that plans are built from: raised when those change, and no old plan is used."""
USUAL = {"raw": (1, 16, 128), "points": (1, 8, 32), "heatmaps": (1, 8, 32), "detect": (1, 1, 1)}
"""Least, usual and most N: images for raw (with flip two a person), else persons or canvases."""
RTX_CAPABILITIES = ((8, 0), (8, 6), (8, 9), (12, 0))
"""What a plan of TensorRT for RTX serves by default; newer ones than the last too."""
_MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
_TIMING = "timing"
_USE = ("kind", "precision", "flip")


class Gpu(Protocol):
    """A GPU's name and compute capability; `cuda.DeviceInfo` is one."""

    @property
    def name(self) -> str:
        """As the driver tells it."""
        ...

    @property
    def capability(self) -> tuple[int, int]:
        """Major and minor."""
        ...


@dataclass(frozen=True)
class PlanOptions:
    """kind: raw (images to heatmaps, for posekit's own runtime), points (crops to points), detect.

    profile: least, usual and most N; None: the usual one, and any that is found.
    flip: of points only.  refit, version_compatible: see `plan.PlanSettings`.
    """

    kind: Kind = "raw"
    precision: Literal["fp32", "fp16", "bf16"] = "fp16"
    profile: tuple[int, int, int] | None = None
    flip: bool = True
    refit: bool = False
    version_compatible: bool = False


DETECT = PlanOptions("detect", "fp32")  # a person detector's one plan, from canvas to boxes


@dataclass(frozen=True, eq=False)
class PlanFile:
    """A plan and what it is.  origin: bundle, cache or built.  path: in the cache, or None.

    notes: why other plans that were found were not taken.
    """

    key: str
    data: bytes
    metadata: Metadata
    origin: Literal["bundle", "cache", "built"]
    path: Path | None = None
    notes: tuple[str, ...] = ()


def library(choice: Library = "auto") -> Any:
    """The module `tensorrt`, or where only that is installed `tensorrt_rtx`.

    Raises MissingExtraError.
    """
    names = _MODULES.values() if choice == "auto" else [_MODULES[choice]]
    problems = []
    for name in names:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            return importlib.import_module(name)
        except ImportError as error:
            problems.append(f"{name} cannot be loaded ({error})")
    extra = "rtx" if choice == "rtx" else "tensorrt"
    what = "; ".join(problems) or f"{' and '.join(names)} not installed"
    raise MissingExtraError(
        f"{what}: pip install 'posekit[{extra}]' on the machine with the NVIDIA GPU"
    )


def is_rtx(trt: Any) -> bool:
    """Whether the module is TensorRT for RTX, which builds without a GPU."""
    return str(trt.__name__).endswith("_rtx")


@contextlib.contextmanager
def machine(trt: Any, index: int = 0) -> Iterator[Gpu | None]:
    """GPU number `index`, current in the block; None where TensorRT for RTX has none to use.

    Raises DeviceError, MissingExtraError.
    """
    try:
        device = cuda.open_device(index)
    except (DeviceError, MissingExtraError):
        if not is_rtx(trt):
            raise
        yield None
        return
    check_served(trt, device.info)
    with device.driver.current():
        yield device.info


def check_ready(choice: Library) -> None:
    """Raises MissingExtraError or DeviceError where no plan can be built here; quick."""
    with machine(library(choice)):
        pass


def check_served(trt: Any, gpu: Gpu | None) -> None:
    """Raises DeviceError where TensorRT for RTX has no code for this GPU."""
    if (
        gpu is not None
        and is_rtx(trt)
        and not _rtx_serves([*RTX_CAPABILITIES, (7, 5)], gpu.capability)
    ):
        major, minor = gpu.capability
        raise DeviceError(
            f"{gpu.name} (compute capability {major}.{minor}): TensorRT for RTX does not serve it; "
            "pip install 'posekit[tensorrt]' in its place"
        )


def _rtx_serves(made: list[tuple[int, int]], here: tuple[int, int]) -> bool:
    return tuple(here) in made or (RTX_CAPABILITIES[-1] in made and here >= RTX_CAPABILITIES[-1])


def plan_for(
    bundle: Bundle, gpu: Gpu | None, *, trt: Any = None, options: PlanOptions = PlanOptions()
) -> PlanFile:
    """The plan of a bundle for this GPU: the one that `find` finds, else built and kept.

    Call it where the GPU is current (`Driver.current`).  gpu: None for TensorRT for RTX without
    one.  Raises MissingExtraError, DeviceError, ExportError, EngineError, ParityError.
    """
    trt = library() if trt is None else trt
    found, notes = _found(bundle, gpu, trt, options=options)
    if found is None:
        found = built(bundle, gpu, trt=trt, options=options)
    return dataclasses.replace(found, notes=notes)


def find(
    bundle: Bundle, gpu: Gpu | None, *, trt: Any = None, options: PlanOptions = PlanOptions()
) -> PlanFile | None:
    """A plan in the bundle or the cache that fits, or None; nothing is built or deserialised.

    Raises MissingExtraError, DeviceError.
    """
    found, notes = _found(bundle, gpu, library() if trt is None else trt, options=options)
    return None if found is None else dataclasses.replace(found, notes=notes)


def _found(
    bundle: Bundle, gpu: Gpu | None, trt: Any, *, options: PlanOptions
) -> tuple[PlanFile | None, tuple[str, ...]]:
    """The plan that fits, and why others of the same use do not."""
    check_served(trt, gpu)
    wanted = wish(bundle, gpu, trt, options=options)
    notes: list[str] = []
    for each in (*kept_in(bundle), *_cached(key_of(wanted))):
        reason = misfit(each.metadata, each.data, wanted)
        if not reason:
            return each, tuple(notes)
        if all(each.metadata.get(name) == wanted[name] for name in _USE):
            notes.append(f"{each.key}: {reason}")
    return None, tuple(notes)


def built(
    bundle: Bundle, gpu: Gpu | None, *, trt: Any, options: PlanOptions = PlanOptions()
) -> PlanFile:
    """A new plan, kept in the cache.  gpu: None for TensorRT for RTX without one.

    Raises MissingExtraError (building needs posekit[export]), DeviceError, ExportError,
    EngineError, ParityError.
    """
    check_served(trt, gpu)
    try:
        from posekit_engines import to_tensorrt
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"building a plan needs {error.name}: pip install 'posekit[export]'"
        ) from error
    wanted = wish(bundle, gpu, trt, options=options)
    data, metadata = to_tensorrt.make(bundle, wanted, trt=trt, options=options)
    key = key_of(wanted)
    path: Path | None = folder() / f"{key}.plan"
    try:
        _write(folder() / f"{key}.plan", data)
        _write(folder() / f"{key}.json", json.dumps(metadata, indent=1).encode())
    except OSError:  # it costs only the time of building it again
        path = None
    return PlanFile(key, data, metadata, "built", path)


def wish(bundle: Bundle, gpu: Gpu | None, trt: Any, *, options: PlanOptions) -> dict[str, Any]:
    """What the metadata of a fitting plan says; a profile of None is not looked at."""
    return {
        "kind": options.kind,
        "precision": options.precision,
        "flip": options.flip if options.kind == "points" else None,
        "graph": graph_hash(bundle),
        "library": str(trt.__name__),
        "version": str(trt.__version__),
        "gpu": None if gpu is None else {"name": gpu.name, "capability": list(gpu.capability)},
        "profile": None if options.profile is None else list(options.profile),
        "refit": options.refit,
        "version_compatible": options.version_compatible,
    }


def graph_hash(bundle: Bundle) -> str:
    """sha256 of all that a plan is made of: graph, weights, spec, and this module's FORMAT."""
    digest = hashlib.sha256(f"{FORMAT}\0{json.dumps(bundle.spec.to_dict())}\0".encode())
    digest.update(bundle.graphs.get("maps", bundle.graphs.get("detect", b"")))
    for name, value in sorted(bundle.weights.items()):
        digest.update(f"\0{name}\0{value.dtype}\0{value.shape}\0".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def key_of(wanted: Metadata) -> str:
    """A file's name for what is wanted: readable in front, a hash of all of it behind."""
    usual = list(USUAL[wanted["kind"]])
    told = {**wanted, "profile": wanted["profile"] or usual}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
    gpu = wanted["gpu"]
    where = (
        "any" if gpu is None else f"{slug(gpu['name'])}-sm{''.join(map(str, gpu['capability']))}"
    )
    parts = (wanted["kind"], wanted["precision"], f"{wanted['library']}{wanted['version']}")
    return "-".join((*parts, where, digest))


def slug(name: str) -> str:
    """A GPU's name in small letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def misfit(metadata: Metadata, data: bytes, wanted: Metadata) -> str:
    """Why a plan is not what is wanted here, in half a sentence; empty where it is."""
    for name, want in wanted.items():
        got = metadata.get(name)
        if name == "gpu":
            fits = _gpu_fits(metadata, want)
        elif name == "version":
            fits = _version_fits(metadata, str(want))
        elif name == "profile":
            fits = want is None or got == want
        else:
            fits = got == want
        if not fits:
            return f"{name} is {_said(got)}, wanted {_said(want)}"
    if hashlib.sha256(data).hexdigest() != metadata.get("sha256"):
        return "damaged: its sha256 is not that of its metadata"
    return ""


def _said(value: Any) -> str:
    return f"{value[:16]}…" if isinstance(value, str) and len(value) > 40 else str(value)


def _gpu_fits(metadata: Metadata, want: Any) -> bool:
    """A plan of TensorRT is for one GPU, one of TensorRT for RTX for a list of capabilities."""
    if str(metadata.get("library")).endswith("_rtx"):
        made = [(each[0], each[1]) for each in metadata.get("capabilities", [])]
        return want is None or _rtx_serves(made, tuple(want["capability"]))
    return bool(metadata.get("gpu") == want)


def _version_fits(metadata: Metadata, want: str) -> bool:
    """The same; of a version-compatible plan, that or a later one of the same major version."""
    got = str(metadata.get("version"))
    if got == want or not metadata.get("version_compatible"):
        return got == want
    try:
        made, here = ([int(n) for n in each.split(".")[:3]] for each in (got, want))
    except ValueError:
        return False
    return made[0] == here[0] and made <= here


def kept_in(bundle: Bundle) -> Iterator[PlanFile]:
    """The plans inside a bundle, with the metadata that its provenance holds."""
    engines = bundle.provenance.get("engines", {})
    for key, metadata in sorted(engines.items() if isinstance(engines, Mapping) else ()):
        data = bundle.extras.get(f"engines/{key}.plan")
        if data is not None and isinstance(metadata, Mapping):
            yield PlanFile(key, data, metadata, "bundle")


def with_plans(bundle: Bundle, plans: list[PlanFile]) -> Bundle:
    """The bundle with plans in `engines/`, their metadata in its provenance."""
    extras = {f"engines/{each.key}.plan": each.data for each in plans}
    engines = {each.key: dict(each.metadata) for each in plans}
    kept = {each.key: dict(each.metadata) for each in kept_in(bundle)}
    provenance = {**bundle.provenance, "engines": {**kept, **engines}}
    return dataclasses.replace(
        bundle, extras={**bundle.extras, **extras}, provenance=provenance, sha256=""
    )


def folder() -> Path:
    """Where plans are kept: under XDG_CACHE_HOME, or ~/.cache."""
    return nvrtc.cache_folder().with_name("engines")


def _cached(key: str) -> Iterator[PlanFile]:
    path = folder() / f"{key}.plan"
    with contextlib.suppress(OSError, ValueError):
        metadata = json.loads(path.with_suffix(".json").read_bytes())
        if isinstance(metadata, dict):
            yield PlanFile(key, path.read_bytes(), metadata, "cache", path)


def such(bundle: Bundle, wanted: Metadata) -> list[PlanFile]:
    """Whole plans in the bundle and in this machine's cache whose metadata says all of `wanted`."""
    found = {each.key: each for each in kept_in(bundle)}
    for path in sorted(folder().glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            if _says(json.loads(path.read_bytes()), wanted):
                found |= {each.key: each for each in _cached(path.stem)}
    return [
        each
        for each in found.values()
        if _says(each.metadata, wanted)
        and hashlib.sha256(each.data).hexdigest() == each.metadata.get("sha256")
    ]


def _says(metadata: Any, wanted: Metadata) -> bool:
    return isinstance(metadata, Mapping) and all(
        metadata.get(name) == value for name, value in wanted.items()
    )


def timing(trt: Any, gpu: Gpu | None) -> tuple[Path, bytes] | None:
    """TensorRT's timings of earlier builds on this GPU and where they are kept.

    None for TensorRT for RTX, which times nothing before it runs.
    """
    if gpu is None or is_rtx(trt):
        return None
    name = f"{_TIMING}-{trt.__version__}-{slug(gpu.name)}.cache"
    try:
        return folder() / name, (folder() / name).read_bytes()
    except OSError:
        return folder() / name, b""


def keep_timing(path: Path, data: bytes) -> None:
    """For the next build; a folder that cannot be written only costs its time."""
    with contextlib.suppress(OSError):
        _write(path, data)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all; processes may do this at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
