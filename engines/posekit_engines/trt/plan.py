"""What a TensorRT plan is, what it is wanted for, and whether it fits a machine."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from posekit.bundle import Bundle
from posekit_engines.trt.library import Gpu, rtx_serves

Kind = Literal["raw", "points", "detect"]
Metadata = Mapping[str, Any]

FORMAT = 1
"""Of the graphs that plans are built from: raised when those change, and no old plan is used."""
USUAL = {"raw": (1, 16, 128), "points": (1, 8, 32), "heatmaps": (1, 8, 32), "detect": (1, 1, 1)}
"""Least, usual and most N: images for raw (with flip two a person), else persons or canvases."""
SAME_USE = ("kind", "precision", "flip")


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


def requirements(
    bundle: Bundle, gpu: Gpu | None, trt: Any, *, options: PlanOptions
) -> dict[str, Any]:
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


def mismatch(metadata: Metadata, data: bytes, wanted: Metadata) -> str:
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
        return want is None or rtx_serves(made, tuple(want["capability"]))
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
