"""From a bundle to a TensorRT plan file: a matching one is found, or a new one built and cached.

Light on purpose: finding a plan imports neither torch nor onnx. What makes one is in `make.py`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from posekit.atomic import write_atomic
from posekit.bundle import Bundle
from posekit.errors import MissingExtraError, SourceError
from posekit_engines.trt.cache import cache_dir, find_with_notes
from posekit_engines.trt.library import Gpu, check_supported, library
from posekit_engines.trt.plan import PlanFile, PlanOptions, key_of, requirements


def plan_for(
    bundle: Bundle, gpu: Gpu | None, *, trt: Any = None, options: PlanOptions = PlanOptions()
) -> PlanFile:
    """The plan of a bundle for this GPU: the one that `cache.find` returns, or a new one.

    Call it while the GPU is current (`Driver.current`).  gpu: None for TensorRT for RTX without
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
    """A new plan, also written to the cache.  gpu: None for TensorRT for RTX without one.

    Raises MissingExtraError (building needs posekit[export]), DeviceError, ExportError,
    EngineError, ParityError.
    """
    check_supported(trt, gpu)
    try:
        from posekit_engines.trt import make
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"building a TensorRT engine needs {error.name}: pip install 'posekit[export]'"
        ) from error
    wanted = requirements(bundle, gpu, trt, options=options)
    data, metadata = make.build_plan_of_bundle(bundle, wanted, trt=trt, options=options)
    key = key_of(wanted)
    path: Path | None = cache_dir() / f"{key}.plan"
    try:
        write_atomic(cache_dir() / f"{key}.plan", data, shared=True)
        write_atomic(cache_dir() / f"{key}.json", json.dumps(metadata, indent=1), shared=True)
    except SourceError:  # the only loss is the time to build it again
        path = None
    return PlanFile(key, data, metadata, "built", path)
