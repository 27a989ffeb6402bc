"""From a checkpoint to a bundle: graphs, weights, check crops, provenance."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import nn

from posekit.bundle import Bundle, Weights
from posekit.checkpoints import Converted
from posekit.errors import ExportError
from posekit.inference.session import open_session
from posekit.nets import build
from posekit.stats.parity import compare
from posekit.types import ModelSpec
from posekit.version import __version__
from posekit_engines.graphs.network import network_graph
from posekit_engines.graphs.points import heatmaps_graph, points_graph
from posekit_engines.graphs.weights import Storage, load_weights, stored
from posekit_engines.parity.crops import reference_crops
from posekit_engines.parity.source import source_points


def pack(
    converted: Converted, name: str, source: Path, *, storage: Storage | None = None
) -> Bundle:
    """The bundle of a converted checkpoint.

    source: the file or folder that it was read from.  storage: of the weights, None for the
    checkpoint's own. Raises ExportError where a weight is beyond float16.
    """
    return assemble_bundle(bundle_of_checkpoint(converted, name, source), storage=storage)


def bundle_of_checkpoint(converted: Converted, name: str, source: Path) -> Bundle:
    """A converted checkpoint with weights in their own type and no graphs, as `export` takes it.

    Its `sha256` is the checkpoint's.
    """
    provenance = _provenance(converted, source)
    return Bundle(
        name=name,
        spec=converted.spec,
        weights=converted.weights,
        graphs={},
        licences={"code": "Apache-2.0", "weights": "unknown: those of the source"},
        provenance=provenance,
        sha256=str(provenance["sha256"]),
    )


def assemble_bundle(
    source: Bundle, spec: ModelSpec | None = None, *, storage: Storage | None = None
) -> Bundle:
    """`source` with new graphs, check crops and parity.

    spec, storage (of the weights): None for the source's own.  The stored reference is the torch
    network's with the source's own weights, so the graphs' deviation in parity.json includes the
    cost of another storage. Raises ExportError where a weight is beyond float16.
    """
    spec = spec or source.pose_spec
    exact = load_weights(build(spec), source.weights)
    weights = stored(source.weights, storage)
    network = network_graph(exact, spec, weights)
    graphs = {
        view: points_graph(network, spec, flip=view == "flip").SerializeToString()
        for view in points_views(spec)
    }
    reference = _reference(exact, spec)
    parity = _parity(graphs, weights, reference)
    graphs["maps"] = heatmaps_graph(network, spec, flip=False).SerializeToString()
    parts = {
        "reference.safetensors": save(reference),
        "parity.json": json.dumps(parity, indent=1, sort_keys=True).encode(),
    }
    extras = {key: part for key, part in source.extras.items() if not key.endswith(".plan")}
    return replace(
        source, spec=spec, weights=weights, graphs=graphs, extras={**extras, **parts}, sha256=""
    )


def points_views(spec: ModelSpec) -> tuple[str, ...]:
    """The points graphs of a bundle: with the flip test only where the mirror pairs are known."""
    return ("flip", "plain") if spec.skeleton.mirror else ("plain",)


def _parity(
    graphs: Mapping[str, bytes], weights: Weights, reference: Weights
) -> dict[str, dict[str, Any]]:
    """Each points graph's deviation from the stored reference, for parity.json."""
    crops = reference["crops"]
    parity = {}
    for view, graph in graphs.items():
        session = open_session(graph, weights, device="cpu", threads=1)
        points, scores = session.run(["points", "scores"], {"crops": crops})
        stored = reference[f"{view}_points"], reference[f"{view}_scores"]
        parity[view] = compare(points, scores, stored, crops=len(crops)).to_dict()
    return parity


def _provenance(converted: Converted, source: Path) -> dict[str, Any]:
    """The source's hash, each resolved field with its origin, and versions."""
    items = {
        item.name: re.sub(r"^[^:]*: ", "", str(item), count=1)  # the name is the key
        for item in converted.items
    }
    return {
        "source": source.name,
        "sha256": _sha256(source),
        "posekit": __version__,
        "torch": torch.__version__.split("+")[0],
        **items,
    }


def _sha256(source: Path) -> str:
    """Of the file, or of a folder's weight files concatenated."""
    files = [source]
    if source.is_dir():
        files = sorted(source.glob("*.safetensors")) or [source / "pytorch_model.bin"]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _reference(net: nn.Module, spec: ModelSpec) -> dict[str, NDArray[Any]]:
    """Check crops, and the torch network's points and scores for them, with and without flip.

    Raises ExportError where these are not finite.
    """
    crops = reference_crops(spec)
    reference: dict[str, NDArray[Any]] = {"crops": crops}
    for view in points_views(spec):
        points, scores = source_points(net, crops, spec, flip=view == "flip")
        reference |= {f"{view}_points": points, f"{view}_scores": scores}
    if not all(np.isfinite(part).all() for part in reference.values()):
        raise ExportError(
            f"{spec.architecture}: its heatmaps of the check crops are not finite: the weights are "
            "damaged, or of another network of the same shapes"
        )
    return reference
