"""TensorRT plan files in a bundle or in the cache folder: find one that matches this machine.

A plan's metadata decides, before TensorRT reads a byte. Finding one imports neither torch nor onnx.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from posekit.atomic import write_atomic
from posekit.bundle import Bundle
from posekit.errors import SourceError
from posekit.inputs.parsing import read_json
from posekit_engines.cuda import nvrtc
from posekit_engines.trt.library import Gpu, check_supported, is_rtx, library
from posekit_engines.trt.plan import (
    SAME_USE,
    Metadata,
    PlanFile,
    PlanOptions,
    key_of,
    mismatch,
    requirements,
    slug,
)

_LARGEST_JSON = 1 << 20


def find(
    bundle: Bundle, gpu: Gpu | None, *, trt: Any = None, options: PlanOptions = PlanOptions()
) -> PlanFile | None:
    """A matching plan in the bundle or the cache, or None; nothing is built or deserialized.

    Raises MissingExtraError, DeviceError.
    """
    found, notes = find_with_notes(bundle, gpu, library() if trt is None else trt, options=options)
    return None if found is None else dataclasses.replace(found, notes=notes)


def find_with_notes(
    bundle: Bundle, gpu: Gpu | None, trt: Any, *, options: PlanOptions
) -> tuple[PlanFile | None, tuple[str, ...]]:
    """The matching plan, and why others for the same use do not match."""
    check_supported(trt, gpu)
    wanted = requirements(bundle, gpu, trt, options=options)
    notes: list[str] = []
    for each in (*plans_in(bundle), *_cached(key_of(wanted))):
        reason = mismatch(each.metadata, each.data, wanted)
        if not reason:
            return each, tuple(notes)
        if all(each.metadata.get(name) == wanted[name] for name in SAME_USE):
            notes.append(f"{each.key}: {reason}")
    return None, tuple(notes)


def plans_in(bundle: Bundle) -> Iterator[PlanFile]:
    """The plans inside a bundle, with their metadata from its provenance."""
    engines = bundle.provenance.get("engines", {})
    for key, metadata in sorted(engines.items() if isinstance(engines, Mapping) else ()):
        data = bundle.extras.get(f"engines/{key}.plan")
        if data is not None and isinstance(metadata, Mapping):
            yield PlanFile(key, data, metadata, "bundle")


def with_plans(bundle: Bundle, plans: list[PlanFile]) -> Bundle:
    """The bundle with plans added in `engines/` and their metadata in its provenance."""
    extras = {f"engines/{each.key}.plan": each.data for each in plans}
    engines = {each.key: dict(each.metadata) for each in plans}
    existing = {each.key: dict(each.metadata) for each in plans_in(bundle)}
    provenance = {**bundle.provenance, "engines": {**existing, **engines}}
    return dataclasses.replace(
        bundle, extras={**bundle.extras, **extras}, provenance=provenance, sha256=""
    )


def cache_dir() -> Path:
    """Folder of cached plans: under XDG_CACHE_HOME, or ~/.cache."""
    return nvrtc.cache_dir().with_name("engines")


def _cached(key: str) -> Iterator[PlanFile]:
    path = cache_dir() / f"{key}.plan"
    with contextlib.suppress(OSError, ValueError):
        metadata = _read(path.with_suffix(".json"))
        if isinstance(metadata, dict):
            yield PlanFile(key, path.read_bytes(), metadata, "cache", path)


def find_matching(bundle: Bundle, wanted: Metadata) -> list[PlanFile]:
    """Undamaged plans in the bundle and in the cache whose metadata has every entry of `wanted`."""
    found = {each.key: each for each in plans_in(bundle)}
    for path in sorted(cache_dir().glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            if _matches(_read(path), wanted):
                found |= {each.key: each for each in _cached(path.stem)}
    return [
        each
        for each in found.values()
        if _matches(each.metadata, wanted)
        and hashlib.sha256(each.data).hexdigest() == each.metadata.get("sha256")
    ]


def _read(path: Path) -> Any:
    """Metadata of a plan in the cache. Raises InputError, which is a ValueError."""
    return read_json(path, max_bytes=_LARGEST_JSON)


def _matches(metadata: Any, wanted: Metadata) -> bool:
    return isinstance(metadata, Mapping) and all(
        metadata.get(name) == value for name, value in wanted.items()
    )


def load_timing_cache(trt: Any, gpu: Gpu | None) -> tuple[Path, bytes] | None:
    """File and content of TensorRT's timing cache for this GPU; empty where there is none yet.

    None for TensorRT for RTX, which times nothing at build time.
    """
    if gpu is None or is_rtx(trt):
        return None
    name = f"timing-{trt.__version__}-{slug(gpu.name)}.cache"
    try:
        return cache_dir() / name, (cache_dir() / name).read_bytes()
    except OSError:
        return cache_dir() / name, b""


def save_timing_cache(path: Path, data: bytes) -> None:
    """Write it for the next build; in a folder that cannot be written nothing is saved."""
    with contextlib.suppress(SourceError):
        write_atomic(path, data, shared=True)
