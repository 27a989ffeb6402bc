"""Bundle to TensorRT plan: found where one fits, else built and kept. Finding needs no ONNX."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from posekit.bundle import Bundle
from posekit.errors import MissingExtraError
from posekit_engines.trt.cache import cache_dir, find_with_notes, write_cached
from posekit_engines.trt.library import Gpu, check_served, library
from posekit_engines.trt.plan import PlanFile, PlanOptions, key_of, requirements


def plan_for(
    bundle: Bundle, gpu: Gpu | None, *, trt: Any = None, options: PlanOptions = PlanOptions()
) -> PlanFile:
    """The plan of a bundle for this GPU: the one that `find` finds, else built and kept.

    Call it where the GPU is current (`Driver.current`).  gpu: None for TensorRT for RTX without
    one.  Raises MissingExtraError, DeviceError, ExportError, EngineError, ParityError.
    """
    trt = library() if trt is None else trt
    found, notes = find_with_notes(bundle, gpu, trt, options=options)
    if found is None:
        found = build_and_keep(bundle, gpu, trt=trt, options=options)
    return dataclasses.replace(found, notes=notes)


def build_and_keep(
    bundle: Bundle, gpu: Gpu | None, *, trt: Any, options: PlanOptions = PlanOptions()
) -> PlanFile:
    """A new plan, kept in the cache.  gpu: None for TensorRT for RTX without one.

    Raises MissingExtraError (building needs posekit[export]), DeviceError, ExportError,
    EngineError, ParityError.
    """
    check_served(trt, gpu)
    try:
        from posekit_engines.trt import make
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"building a plan needs {error.name}: pip install 'posekit[export]'"
        ) from error
    wanted = requirements(bundle, gpu, trt, options=options)
    data, metadata = make.build_plan_of_bundle(bundle, wanted, trt=trt, options=options)
    key = key_of(wanted)
    path: Path | None = cache_dir() / f"{key}.plan"
    try:
        write_cached(cache_dir() / f"{key}.plan", data)
        write_cached(cache_dir() / f"{key}.json", json.dumps(metadata, indent=1).encode())
    except OSError:  # it costs only the time of building it again
        path = None
    return PlanFile(key, data, metadata, "built", path)
