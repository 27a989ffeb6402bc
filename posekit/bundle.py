"""A self-describing file: network, graphs, conventions, licenses and provenance.

A bundle is a zip whose entries are stored, not compressed, with fixed dates: the same content is
the same bytes. Nothing in it is ever unpickled, and every part is checked against the manifest's
sha256 when the file is opened, which finds damage, not forgery: pin a file's own hash for that.

    manifest.json           schema, name, kind, spec, sha256 of each part, licenses, provenance
    weights.safetensors     the state dict, each tensor once
    graphs/<name>.onnx      flip, plain, maps (pose) or detect; weights are external, by name
    reference.safetensors   check crops and the source network's output
    calibration.json        scores as probabilities, by graph, and the data behind it; optional
    parity.json, adapt.json, engines/<key>.plan   optional
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from posekit.atomic import write_atomic
from posekit.errors import BundleError, InputError, PosekitError
from posekit.inputs.onnx_scan import check_supplied
from posekit.inputs.parsing import parse_json, printable, reason, shown
from posekit.stats.calibration import Calibration
from posekit.types import DetectorSpec, ModelSpec

SCHEMA = 1
SUFFIX = ".posekit"
MODELS = Path(__file__).parent / "models"
_PART = re.compile(
    r"manifest\.json|weights\.safetensors|reference\.safetensors|parity\.json|adapt\.json"
    r"|calibration\.json"
    r"|graphs/[a-z]+\.onnx|engines/[\w.-]+\.plan"
)
_FILE_HEADER = 30  # bytes before an entry's name
_LARGEST_JSON = 1 << 24
_LARGEST_FILE = 1 << 34
_MANIFEST = {"name": str, "spec": dict, "parts": dict, "licences": dict, "provenance": dict}
# What zipfile raises for a file that is none, is cut off, or whose entries are of an unknown kind.
_NO_ZIP = (
    zipfile.BadZipFile,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
)
_DATE = (1980, 1, 1, 0, 0, 0)

Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Bundle:
    """A model and all that is needed to run it.

    name: what people call it.  spec: the arithmetic around the network.
    weights: state dict, numpy.  graphs: ONNX bytes by name (pose: flip and plain give points,
        maps the plain heatmaps; detector: detect).
    licences: of code, weights, data.  provenance: parents, recipe, data, seed, versions.
    extras: further parts by path, bytes.  sha256: of the file it was read from, or "".
    """

    name: str
    spec: ModelSpec | DetectorSpec
    weights: Weights
    graphs: Mapping[str, bytes]
    licences: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, bytes] = field(default_factory=dict)
    sha256: str = ""

    @property
    def kind(self) -> str:
        """`pose` or `detector`."""
        return "pose" if isinstance(self.spec, ModelSpec) else "detector"

    @property
    def pose_spec(self) -> ModelSpec:
        """The spec of a pose model. Raises BundleError for a detector."""
        if isinstance(self.spec, DetectorSpec):
            raise BundleError(f"{self.name} is a person detector; wanted a pose model")
        return self.spec

    @property
    def reference(self) -> dict[str, NDArray[Any]]:
        """Check crops uint8 (N, H, W, 3), the source network's points and scores; may be empty."""
        return _load_tensors(self.extras.get("reference.safetensors", b""), self.name)

    def calibration(self, graph: str) -> Calibration | None:
        """What the scores of `graph` are worth, where the bundle knows. Raises BundleError."""
        part = self.extras.get("calibration.json")
        if part is None:
            return None
        try:
            graphs = parse_json(part, name="calibration.json", max_bytes=_LARGEST_JSON)["graphs"]
            found = Calibration.from_dict(graphs[graph]) if graph in graphs else None
        except (InputError, KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"{self.name}: calibration.json is not a calibration ({error})"
            ) from error
        if found is not None and len(found.probabilities) != len(self.pose_spec.skeleton):
            raise BundleError(
                f"{self.name}: calibration.json is of {len(found.probabilities)} keypoints, the "
                f"model of {len(self.pose_spec.skeleton)}"
            )
        return found

    def manifest(self) -> dict[str, Any]:
        """The contents of manifest.json, sha256 of each part included."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "kind": self.kind,
            "spec": self.spec.to_dict(),
            "parts": {name: _sha256(data) for name, data in sorted(self._parts().items())},
            "licences": dict(self.licences),
            "provenance": dict(self.provenance),
        }

    def to_bytes(self) -> bytes:
        """The file: the same content gives the same bytes on every machine."""
        manifest = json.dumps(self.manifest(), indent=1, sort_keys=True).encode()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name, data in [("manifest.json", manifest), *sorted(self._parts().items())]:
                entry = zipfile.ZipInfo(name, _DATE)
                entry.create_system, entry.external_attr = 3, 0o644 << 16
                archive.writestr(entry, data)
        return buffer.getvalue()

    def save(self, path: str | Path) -> None:
        """Write the file; it appears whole or not at all. Raises SourceError."""
        write_atomic(Path(path), self.to_bytes())

    def _parts(self) -> dict[str, bytes]:
        from safetensors.numpy import save

        tensors = {name: np.ascontiguousarray(array) for name, array in self.weights.items()}
        graphs = {f"graphs/{name}.onnx": data for name, data in self.graphs.items()}
        return {"weights.safetensors": save(tensors), **graphs, **self.extras}

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Read and check a file. Raises BundleError for anything but a sound bundle."""
        path = Path(path)
        try:
            data = read_whole(path)
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                parts = _read_parts(archive, path)
        except _NO_ZIP as error:
            raise BundleError(
                f"{path}: not a posekit bundle, or damaged ({reason(error)})"
            ) from error
        manifest = _check_manifest(parts, path)
        weights = _load_tensors(parts.pop("weights.safetensors"), path)
        graphs = {name: parts.pop(name) for name in sorted(parts) if name.startswith("graphs/")}
        for name, graph in graphs.items():
            check_supplied(graph, weights, f"{path}: {name}")
        return cls(
            name=str(manifest["name"]),
            spec=_spec(manifest, path),
            weights=weights,
            graphs={name[len("graphs/") : -len(".onnx")]: graph for name, graph in graphs.items()},
            licences=manifest["licences"],
            provenance=manifest["provenance"],
            extras={name: part for name, part in parts.items() if name != "manifest.json"},
            sha256=_sha256(data),
        )


def read_whole(path: Path) -> bytes:
    """A model file's bytes. Raises BundleError: not there, empty, or a pointer to a file."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise BundleError(f"{path}: larger than {_LARGEST_FILE:,} bytes; no model here is")
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, MemoryError) as error:  # a NUL in the name; larger than memory
        raise BundleError(f"{shown(str(path))}: cannot be read: {error}") from error
    if not data:
        raise BundleError(f"{path}: is empty (0 bytes); fetch it again")
    if data.startswith(b"version https://git-lfs"):
        raise BundleError(f"{path}: is a Git LFS pointer, not the file itself; run `git lfs pull`")
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_parts(archive: zipfile.ZipFile, path: Path) -> dict[str, bytes]:
    """The zip's entries; refuses what a bundle never holds (bombs, escapes, doubles)."""
    check_entries(archive, str(path))
    parts: dict[str, bytes] = {}
    for entry in archive.infolist():
        if not _PART.fullmatch(entry.filename) or entry.filename in parts:
            raise BundleError(f"{path}: holds {shown(entry.filename)}, which no bundle does")
        parts[entry.filename] = archive.read(entry)
    if "manifest.json" not in parts:
        raise BundleError(f"{path}: a zip without manifest.json, so not a posekit bundle")
    return parts


def check_entries(
    archive: zipfile.ZipFile, where: str, *, error: type[PosekitError] = BundleError
) -> None:
    """Raises `error` unless a zip's entries are stored, one behind another, and not compressed."""
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    starts = [entry.header_offset for entry in entries[1:]] + [archive.start_dir]
    for entry, following in zip(entries, starts, strict=True):
        stored = entry.compress_type == zipfile.ZIP_STORED
        if not stored or entry.file_size != entry.compress_size:
            raise error(f"{where}: {shown(entry.filename)} is compressed; its parts never are")
        # In the file each has a header of its own, its name, then its bytes.
        size = _FILE_HEADER + len(entry.orig_filename) + entry.compress_size
        if entry.header_offset + size > following:
            raise error(f"{where}: damaged: its entries overlap at {shown(entry.filename)}")


def _check_manifest(parts: dict[str, bytes], path: Path) -> dict[str, Any]:
    """The manifest, after its schema and the sha256 of every part were checked."""
    where = f"{path}: manifest.json"
    data = parts["manifest.json"]
    manifest = parse_json(data, name=where, error=BundleError, max_bytes=_LARGEST_JSON)
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if not isinstance(schema, int) or schema > SCHEMA:
        raise BundleError(
            f"{path}: bundle schema {shown(schema)}; this posekit reads up to {SCHEMA}: update "
            "posekit"
        )
    wrong = [key for key, kind in _MANIFEST.items() if not isinstance(manifest.get(key), kind)]
    if wrong:
        raise BundleError(f"{where} is not a bundle's: {wrong[0]} is missing or of another type")
    listed = manifest["parts"]
    if set(listed) != set(parts) - {"manifest.json"} or "weights.safetensors" not in listed:
        odd = sorted(set(listed) ^ (set(parts) - {"manifest.json"}))
        raise BundleError(
            f"{path}: parts and manifest differ: {', '.join(map(shown, odd[:4])) or 'no weights'}"
        )
    for name, digest in listed.items():
        if _sha256(parts[name]) != digest:
            raise BundleError(f"{path}: {name} is damaged (its sha256 is not the manifest's)")
    return {**manifest, "name": printable(manifest["name"])}


def _spec(manifest: Mapping[str, Any], path: Path) -> ModelSpec | DetectorSpec:
    kind = manifest.get("kind")
    try:
        if kind == "pose":
            return ModelSpec.from_dict(manifest["spec"])
        if kind == "detector":
            return DetectorSpec.from_dict(manifest["spec"])
    except InputError as error:
        raise BundleError(f"{path}: its spec is wrong: {error}") from error
    raise BundleError(f"{path}: holds a {shown(kind)}; this posekit reads pose and detector")


def _load_tensors(data: bytes, where: object) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if not data:
        return {}
    try:
        return load(data)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:  # also an unknown type
        raise BundleError(f"{where}: tensors cannot be read ({reason(error)})") from error


def embedded() -> dict[str, Path]:
    """The bundles that come with posekit, by name."""
    return {path.stem: path for path in sorted(MODELS.glob(f"*{SUFFIX}"))}


def check_name(path: Path) -> None:
    """Whether a bundle may be written under this name. Raises InputError."""
    if path.suffix.lower() != SUFFIX:
        raise InputError(f"{path}: what is written is a bundle; wanted a name in {SUFFIX}")


def find(model: str | Path) -> Path:
    """The file that MODEL names: an embedded model or a path. Raises BundleError."""
    if "://" in str(model):
        raise BundleError(
            f"{model}: posekit downloads nothing by itself; fetch the file and give its path"
        )
    path = Path(model)
    names = embedded()
    if str(model) in names:
        return names[str(model)]
    if path.is_file():
        return path
    import difflib

    close = difflib.get_close_matches(str(model), names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"embedded models: {', '.join(names)}"
    raise BundleError(f"{model}: no such file and no embedded model of that name; {hint}")
