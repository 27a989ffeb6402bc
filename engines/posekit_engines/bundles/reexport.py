"""A bundle from a bundle or checkpoint, in another precision or decoding; parents are kept."""

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

    In fp32 it has the graphs flip, plain and maps with external weights. In another precision it
    has the points graph at `points`, with its weights inside, and maps in fp32 with the source's
    weights, which adaptation and other exports start from.  Raises ExportError.
    """
    fp32 = assemble_bundle(source, spec)
    graphs, extras = dict(fp32.graphs), dict(fp32.extras)
    if options.precision != "fp32":
        view = "flip" if options.flip else "plain"
        graphs = {view: points.read_bytes(), "maps": graphs["maps"]}
        extras["parity.json"] = json.dumps({view: parity}, indent=1, sort_keys=True).encode()
    provenance = _provenance(source, spec, options)
    return dataclasses.replace(fp32, graphs=graphs, extras=extras, provenance=provenance)


def _provenance(source: Bundle, spec: ModelSpec, options: ExportOptions) -> dict[str, Any]:
    """The source's with itself as the last parent; a checkpoint (no graphs) is none."""
    kept = {key: v for key, v in source.provenance.items() if key not in ("parents", "export")}
    parents = list(source.provenance.get("parents", []))
    if source.graphs:
        parents.append(source.sha256)
    export = {"precision": options.precision, "decode": spec.decode, "posekit": __version__}
    if options.precision != "fp32":
        export["graph"] = "flip" if options.flip else "plain"
        export["weights"] = "inside that graph; maps takes them from weights.safetensors"
    return {**kept, "parents": parents, "export": export}
