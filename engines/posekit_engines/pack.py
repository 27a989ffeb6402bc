"""From a checkpoint to a bundle: graphs, float16 weights, check crops, and who said what."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor, nn

from posekit import __version__, bundle, checkpoints
from posekit.atomic import AtomicFile, explained
from posekit.bundle import Bundle, Weights, check_name
from posekit.checkpoints import Converted, Overrides, hub
from posekit.errors import ExportError
from posekit.nets import build
from posekit.runtime import open_session
from posekit.types import ModelSpec, UInt8
from posekit_engines.graph import heatmaps_graph, points_graph
from posekit_engines.parity import compare, source_answer
from posekit_engines.to_onnx import bundle_weights, network_graph

_LARGEST = float(np.finfo(np.float16).max)


def convert(
    source: str | Path, output: str | Path, overrides: Overrides, *, overwrite: bool = False
) -> Converted:
    """Read a checkpoint and write its bundle; what was decided is in the result's items.

    source: a file or folder, or hf://OWNER/NAME[@REVISION], which is fetched first.
    Raises CheckpointError, ExportError, SourceError (output exists, or cannot be written),
    InputError (its name), MissingExtraError.
    """
    output = Path(output)
    check_name(output)
    with AtomicFile(output, "wb", overwrite=overwrite) as made:  # before the work
        if str(source).startswith(hub.SCHEME):
            with TemporaryDirectory(prefix="posekit-") as folder:
                fetched = hub.fetch(str(source), Path(folder))
                said = fetched.to_dict()
                converted, packed = _converted(fetched.path, output.stem, overrides, fetched=said)
        else:
            converted, packed = _converted(source, output.stem, overrides, fetched={})
        with explained(output):
            made.file.write(packed.to_bytes())
    return converted


def _converted(
    source: str | Path, name: str, overrides: Overrides, *, fetched: Mapping[str, Any]
) -> tuple[Converted, Bundle]:
    """What was understood, and the bundle; `fetched` is what provenance adds of a download."""
    converted = checkpoints.load(source, overrides)
    packed = pack(converted, name, Path(source))
    return converted, replace(packed, provenance={**packed.provenance, **fetched})


def read(source: str | Path) -> Bundle:
    """A checkpoint with each family's defaults, as `export` takes it: float32, no graphs.

    Raises CheckpointError.
    """
    path = Path(source)
    return unpacked(checkpoints.load(source), path.stem, path)


def pack(converted: Converted, name: str, source: Path) -> Bundle:
    """The bundle of a converted checkpoint; `source` is the file or folder that it came from.

    Weights become float16.  Raises ExportError where one does not fit.
    """
    return assembled(unpacked(converted, name, source))


def unpacked(converted: Converted, name: str, source: Path) -> Bundle:
    """A converted checkpoint with float32 weights and without graphs: what `export` starts from.

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


def assembled(source: Bundle, spec: ModelSpec | None = None) -> Bundle:
    """`source` with new graphs, float16 weights, check crops and parity, its own spec or `spec`.

    The stored answer is that of the network in torch with the source's own weights, and parity.json
    says how far each graph is from it, so it holds what float16 costs.
    Raises ExportError where a weight does not fit.
    """
    spec = spec or source.pose_spec
    exact = loaded(build(spec), source.weights)
    weights = bundle_weights(exact)
    network = network_graph(exact, spec)
    graphs = {
        view: points_graph(network, spec, flip=view == "flip").SerializeToString()
        for view in ("flip", "plain")
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


def _parity(
    graphs: Mapping[str, bytes], weights: Weights, reference: Weights
) -> dict[str, dict[str, Any]]:
    """How far each points graph is from the stored answer; for parity.json."""
    crops = reference["crops"]
    found = {}
    for view, graph in graphs.items():
        session = open_session(graph, weights, device="cpu", threads=1)
        points, scores = session.run(["points", "scores"], {"crops": crops})
        truth = reference[f"{view}_points"], reference[f"{view}_scores"]
        found[view] = compare(points, scores, truth, crops=len(crops)).to_dict()
    return found


def loaded(net: nn.Module, weights: Mapping[str, NDArray[Any]]) -> nn.Module:
    """`net` with the weights, strictly but for batch norm's counters, in evaluation mode.

    Raises ExportError where a weight does not fit float16.
    """
    state: dict[str, Tensor] = {}
    for name, value in weights.items():
        if float(np.abs(value).max(initial=0.0)) > _LARGEST:
            raise ExportError(
                f"{name}: holds {float(np.abs(value).max()):g}, beyond float16's {_LARGEST:g}, "
                "in which bundles store weights; rescale that layer"
            )
        state[name] = torch.from_numpy(value.astype(np.float32))
    counters = {name: v for name, v in net.state_dict().items() if not v.is_floating_point()}
    net.load_state_dict({**counters, **state})
    return net.eval()


def _provenance(converted: Converted, source: Path) -> dict[str, Any]:
    """The source's hash, each item with who said it, and versions; `inspect` prints it."""
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
    """Of the file, or of a folder's weight files one after another."""
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
    """Check crops, and what the network in torch and the numpy codecs find in them."""
    crops = check_crops(spec)
    flip, plain = (source_answer(net, crops, spec, flip=flip) for flip in (True, False))
    return {
        "crops": crops,
        "flip_points": flip[0],
        "flip_scores": flip[1],
        "plain_points": plain[0],
        "plain_scores": plain[1],
    }


def check_crops(spec: ModelSpec) -> UInt8:
    """The embedded MoveNet's check crops, uint8 (N, H, W, 3) RGB, cut to this input's size."""
    crops = Bundle.open(bundle.find("movenet-thunder")).reference["crops"]
    width, height = spec.input_size
    side = crops.shape[1]
    across = min(side, round(side * width / height)) // 2
    down = min(side, round(side * height / width)) // 2
    middle = crops[:, side // 2 - down : side // 2 + down, side // 2 - across : side // 2 + across]
    return np.stack([cv2.resize(crop, (width, height)) for crop in middle]).astype(np.uint8)
