"""TensorRT plan files: the options they are built with, their key, and whether one matches."""

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
from posekit_engines.trt.library import Gpu, rtx_supports

Kind = Literal["raw", "points", "detect"]
Metadata = Mapping[str, Any]

FORMAT = 1
"""Version of the graphs that plans are built from: incremented when they change, so that no older
plan matches."""
DEFAULT_PROFILES = {
    "raw": (1, 16, 128),
    "points": (1, 8, 32),
    "heatmaps": (1, 8, 32),
    "detect": (1, 1, 1),
}
"""Minimum, usual and maximum N: images for raw (with flip 2 a person), else persons or canvases."""
SAME_USE = ("kind", "precision", "flip")
"""Metadata that says what a plan is used for."""


@dataclass(frozen=True)
class PlanOptions:
    """kind: raw (images to heatmaps, for posekit's own runtime), points (crops to points), detect.

    profile: minimum, usual and maximum N; None: the default when building, any when finding.
    flip: for points only.  refit, version_compatible: see `builder.BuilderSettings`.
    """

    kind: Kind = "raw"
    precision: Literal["fp32", "fp16", "bf16"] = "fp16"
    profile: tuple[int, int, int] | None = None
    flip: bool = True
    refit: bool = False
    version_compatible: bool = False


DETECT = PlanOptions("detect", "fp32")
"""Options of a person detector's only plan, from canvas to boxes."""


@dataclass(frozen=True, eq=False)
class PlanFile:
    """Content and metadata of a plan file.  origin: bundle, cache or built.  path: in the cache.

    notes: why other plans that were found do not match.
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
    """Metadata that a matching plan must have; a profile of None matches any."""
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
    """sha256 of everything a plan is built from: graph, weights, spec, and this module's FORMAT."""
    digest = hashlib.sha256(f"{FORMAT}\0{json.dumps(bundle.spec.to_dict())}\0".encode())
    digest.update(bundle.graphs.get("maps", bundle.graphs.get("detect", b"")))
    for name, value in sorted(bundle.weights.items()):
        digest.update(f"\0{name}\0{value.dtype}\0{value.shape}\0".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def key_of(wanted: Metadata) -> str:
    """File name for these requirements: a readable prefix and a hash of all of them."""
    default = list(DEFAULT_PROFILES[wanted["kind"]])
    hashed = {**wanted, "profile": wanted["profile"] or default}
    digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:16]
    gpu = wanted["gpu"]
    where = (
        "any" if gpu is None else f"{slug(gpu['name'])}-sm{''.join(map(str, gpu['capability']))}"
    )
    parts = (wanted["kind"], wanted["precision"], f"{wanted['library']}{wanted['version']}")
    return "-".join((*parts, where, digest))


def slug(name: str) -> str:
    """A GPU's name in lower-case letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def mismatch(metadata: Metadata, data: bytes, wanted: Metadata) -> str:
    """The first difference between a plan's metadata and what is wanted; empty where it matches."""
    for name, want in wanted.items():
        got = metadata.get(name)
        if name == "gpu":
            matches = _gpu_matches(metadata, want)
        elif name == "version":
            matches = _version_matches(metadata, str(want))
        elif name == "profile":
            matches = want is None or got == want
        else:
            matches = got == want
        if not matches:
            return f"{name} is {_shortened(got)}, wanted {_shortened(want)}"
    if hashlib.sha256(data).hexdigest() != metadata.get("sha256"):
        return "damaged: its sha256 is not that of its metadata"
    return ""


def _shortened(value: Any) -> str:
    return f"{value[:16]}…" if isinstance(value, str) and len(value) > 40 else str(value)


def _gpu_matches(metadata: Metadata, want: Any) -> bool:
    """TensorRT's plans are for one GPU, those of TensorRT for RTX for a list of capabilities."""
    if str(metadata.get("library")).endswith("_rtx"):
        built_for = [(each[0], each[1]) for each in metadata.get("capabilities", [])]
        return want is None or rtx_supports(built_for, tuple(want["capability"]))
    return bool(metadata.get("gpu") == want)


def _version_matches(metadata: Metadata, want: str) -> bool:
    """Equal; for a version-compatible plan also a later version of the same major version."""
    got = str(metadata.get("version"))
    if got == want or not metadata.get("version_compatible"):
        return got == want
    try:
        built_with, installed = ([int(n) for n in each.split(".")[:3]] for each in (got, want))
    except ValueError:
        return False
    return built_with[0] == installed[0] and built_with <= installed
