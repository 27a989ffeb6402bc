"""`posekit convert`: a public checkpoint to a bundle file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from posekit import checkpoints
from posekit.atomic import AtomicFile, explained
from posekit.bundle import Bundle, check_name
from posekit.checkpoints import Converted, Overrides, ResolvedField, hub
from posekit_engines.bundles.assemble import bundle_of_checkpoint, pack
from posekit_engines.graphs.weights import Storage


def convert(
    source: str | Path,
    output: str | Path,
    overrides: Overrides,
    *,
    storage: Storage | None = None,
    overwrite: bool = False,
) -> Converted:
    """Read a checkpoint and write its bundle; the result's items are what was decided, and why.

    source: a file or folder, or hf://OWNER/NAME[@REVISION], which is fetched first.
    storage: of the weights, None for the checkpoint's own.
    Raises CheckpointError, ExportError, SourceError (output exists, or cannot be written),
    InputError (its name), MissingExtraError.
    """
    output = Path(output)
    check_name(output)
    with AtomicFile(output, "wb", overwrite=overwrite) as target:  # before the work
        if str(source).startswith(hub.SCHEME):
            with TemporaryDirectory(prefix="posekit-") as folder:
                fetched = hub.fetch(str(source), Path(folder))
                converted = _load(fetched.path, overrides, storage)
                bundle = pack(converted, output.stem, fetched.path, storage=storage)
            provenance = {**bundle.provenance, **fetched.to_dict()}
            bundle = replace(bundle, provenance=provenance)
        else:
            converted = _load(source, overrides, storage)
            bundle = pack(converted, output.stem, Path(source), storage=storage)
        with explained(output):
            target.file.write(bundle.to_bytes())
    return replace(converted, parity=json.loads(bundle.extras["parity.json"]))


def _load(source: str | Path, overrides: Overrides, storage: Storage | None) -> Converted:
    """The checkpoint, its items with the origin of the stored type. Raises CheckpointError."""
    converted = checkpoints.load(source, overrides)
    if storage is None:
        return converted
    flag = ResolvedField("storage", "float16" if storage == "fp16" else "float32", "flag")
    items = tuple(flag if each.name == flag.name else each for each in converted.items)
    return replace(converted, items=items)


def read_checkpoint(source: str | Path) -> Bundle:
    """A checkpoint with each family's defaults, as `export` takes it: its weights, no graphs.

    Raises CheckpointError.
    """
    path = Path(source)
    return bundle_of_checkpoint(checkpoints.load(source), path.stem, path)
