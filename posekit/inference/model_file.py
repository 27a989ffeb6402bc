"""What `-m` names: a bundle, or an `.onnx` that `posekit export` wrote, weights inside or beside.

ONNX itself is not needed: its metadata is read by ONNX Runtime, and weights that
stand beside it are a safetensors file, which ONNX Runtime gets as it gets a bundle's weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from posekit.bundle import Bundle, Weights, read_whole
from posekit.errors import BundleError, InputError
from posekit.inference.session import open_session
from posekit.inputs.onnx_scan import external_initializers
from posekit.inputs.parsing import parse_json, printable, reason
from posekit.types import ModelSpec

DATA = ".data"
"""Behind an exported file's name, where its weights are too many for one file."""
_BLOCK = 1 << 22
_POINTS = ("points", "points in frame px (--affine)")
"""What the metadata calls outputs that can be run; the latter get a warp that changes nothing."""


def open_model(path: Path) -> Bundle:
    """A pose model: a bundle, or an `.onnx` that `posekit export` wrote with points inside.

    Its sha256 is that of the file, and of the `.data` beside it where there is one.
    Raises BundleError.
    """
    if path.suffix.lower() != ".onnx":
        return Bundle.open(path)
    graph = read_whole(path)
    weights, sha256 = _beside(path, graph)
    metadata = _metadata(path, graph, weights)
    try:
        spec = ModelSpec.from_dict(parse_json(metadata["spec"], name="spec", max_bytes=_BLOCK))
    except (InputError, KeyError) as error:
        raise BundleError(f"{path}: its metadata is damaged ({error})") from error
    name = "flip" if metadata.get("flip") == "true" else "plain"
    return Bundle(
        printable(metadata.get("name", path.stem)), spec, weights, {name: graph}, sha256=sha256
    )


def _beside(path: Path, graph: bytes) -> tuple[Weights, str]:
    """The weights that the graph has outside of itself, and the sha256 of it and them.

    Raises BundleError.
    """
    digest = hashlib.sha256(graph)
    if not external_initializers(graph, str(path)):
        return {}, digest.hexdigest()
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    data = path.with_name(path.name + DATA)
    try:
        with data.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        return load_file(data), digest.hexdigest()
    except OSError as error:
        raise BundleError(
            f"{path}: its weights lie in a file beside it, and {data.name} cannot be read there "
            f"({error.strerror or error}); copy both"
        ) from error
    except SafetensorError as error:
        raise BundleError(
            f"{data}: damaged, or not written by `posekit export` ({reason(error)})"
        ) from error


def _metadata(path: Path, graph: bytes, weights: Weights) -> Mapping[str, str]:
    """What `posekit export` wrote into a file that gives points. Raises BundleError."""
    try:
        session = open_session(graph, weights, device="cpu", threads=1)
    except BundleError as error:
        raise BundleError(f"{path}: not a whole ONNX file: {error}") from error
    metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    if metadata.get("outputs") not in _POINTS:
        found = f"outputs {metadata['outputs']}" if "outputs" in metadata else "no posekit metadata"
        raise BundleError(
            f"{path}: holds {found}; infer runs what `posekit export --outputs points` writes"
        )
    return metadata
