"""`posekit convert`: a public checkpoint to a bundle file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from posekit import checkpoints
from posekit.atomic import AtomicFile, check_free, explained
from posekit.bundle import Bundle, check_name
from posekit.checkpoints import Converted, Overrides, hub
from posekit_engines.bundles.assemble import bundle_of_checkpoint, pack


def convert(
    source: str | Path, output: str | Path, overrides: Overrides, *, overwrite: bool = False
) -> Converted:
    """Read a checkpoint and write its bundle; the result's items are what was decided, and why.

    source: a file or folder, or hf://OWNER/NAME[@REVISION], which is fetched first.
    Raises CheckpointError, ExportError, SourceError (output exists, or cannot be written),
    InputError (its name), MissingExtraError.
    """
    output = Path(output)
    check_name(output)
    check_free(output, overwrite=overwrite)
    with AtomicFile(output, "wb") as target:  # before the work: it may not be writable
        if str(source).startswith(hub.SCHEME):
            with TemporaryDirectory(prefix="posekit-") as folder:
                fetched = hub.fetch(str(source), Path(folder))
                converted, bundle = _convert(
                    fetched.path, output.stem, overrides, download=fetched.to_dict()
                )
        else:
            converted, bundle = _convert(source, output.stem, overrides, download={})
        with explained(output):
            target.file.write(bundle.to_bytes())
    return converted


def _convert(
    source: str | Path, name: str, overrides: Overrides, *, download: Mapping[str, Any]
) -> tuple[Converted, Bundle]:
    """The converted checkpoint and its bundle; `download` is added to the provenance."""
    converted = checkpoints.load(source, overrides)
    bundle = pack(converted, name, Path(source))
    return converted, replace(bundle, provenance={**bundle.provenance, **download})


def read_checkpoint(source: str | Path) -> Bundle:
    """A checkpoint with each family's defaults, as `export` takes it: float32, no graphs.

    Raises CheckpointError.
    """
    path = Path(source)
    return bundle_of_checkpoint(checkpoints.load(source), path.stem, path)
