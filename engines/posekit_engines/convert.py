"""`posekit convert`: a public checkpoint to a bundle file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from posekit import checkpoints
from posekit.atomic import AtomicFile, explained
from posekit.bundle import Bundle, check_name
from posekit.checkpoints import Converted, Overrides, hub
from posekit_engines.bundles.assemble import bundle_of_checkpoint, pack


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


def read_checkpoint(source: str | Path) -> Bundle:
    """A checkpoint with each family's defaults, as `export` takes it: float32, no graphs.

    Raises CheckpointError.
    """
    path = Path(source)
    return bundle_of_checkpoint(checkpoints.load(source), path.stem, path)
