"""A bundle from a bundle or checkpoint: other precision or decoding, the chain of parents kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from posekit.bundle import Bundle
from posekit.types import ModelSpec
from posekit.version import __version__
from posekit_engines.bundles.assemble import assemble_bundle
from posekit_engines.options import ExportOptions


def reexport_bundle(
    source: Bundle,
    spec: ModelSpec,
    *,
    options: ExportOptions,
    points: Path,
    parity: dict[str, Any],
) -> Bundle:
    """The new bundle; its provenance names its parent's sha256 and the options.

    In fp32 it holds flip, plain and maps, and new weights need no new graph. In another precision
    it holds the one points graph at `points`, which has its weights inside, and maps in fp32 with
    the source's weights, which further work starts from.  Raises ExportError.
    """
    packed = assemble_bundle(source, spec)
    graphs, extras = dict(packed.graphs), dict(packed.extras)
    if options.precision != "fp32":
        view = "flip" if options.flip else "plain"
        graphs = {view: points.read_bytes(), "maps": graphs["maps"]}
        extras["parity.json"] = json.dumps({view: parity}, indent=1, sort_keys=True).encode()
    provenance = _provenance(source, spec, options)
    return dataclasses.replace(packed, graphs=graphs, extras=extras, provenance=provenance)


def _provenance(source: Bundle, spec: ModelSpec, options: ExportOptions) -> dict[str, Any]:
    """The source's, one parent longer; a checkpoint (no graphs) is named there as it is."""
    kept = {key: v for key, v in source.provenance.items() if key not in ("parents", "export")}
    parents = list(source.provenance.get("parents", []))
    if source.graphs:
        parents.append(source.sha256)
    said = {"precision": options.precision, "decode": spec.decode, "posekit": __version__}
    if options.precision != "fp32":
        said["graph"] = "flip" if options.flip else "plain"
        said["weights"] = "inside that graph; maps takes them from weights.safetensors"
    return {**kept, "parents": parents, "export": said}
