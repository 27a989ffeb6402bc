"""Persons on disk: a file of raw patches and a table, in a folder that is written atomically.

The patches are memory-mapped, so only those in use are in memory; a person needs 3 * PW * PH bytes
on disk (0.25 MB at 192 px of input, 0.44 MB at 256). Written row by row with plain file calls, not
into `numpy.lib.format.open_memmap`: a store to a mapped page on a full disk ends the process with
SIGBUS, a failed write is an error with a message.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit.atomic import explained
from posekit.errors import DataError
from posekit.types import ModelSpec, UInt8
from posekit_finetune.data.persons import FindCounts, Patches, Persons, offset_of, patch_size

Arrays = dict[str, NDArray[Any]]

_FORMAT = 1  # increment when persons are chosen or stored differently: invalidates old folders
_PIXELS, _TABLE = "patches.u8", "persons.npz"
_BLOCK = 256  # patches hashed at a time


@dataclass(frozen=True)
class Row:
    """One person in the table; see Persons."""

    box: tuple[float, ...]
    source: str
    group: int
    time_s: float
    track: int


class PatchWriter:
    """Writes the file of patches; a row may be written again. Raises SourceError."""

    def __init__(self, folder: Path, spec: ModelSpec) -> None:
        self.path, self.spec = folder / _PIXELS, spec
        self._bytes = _patch_bytes(spec)
        with explained(self.path):
            self._file = self.path.open("wb")

    def write(self, row: int, patch: UInt8) -> None:
        """Write the patch (PH, PW, 3) of a row."""
        with explained(self.path):
            self._file.seek(row * self._bytes)
            self._file.write(np.ascontiguousarray(patch).data)

    def close(self) -> None:
        """Flush and close the file."""
        with explained(self.path):
            self._file.close()


def _patch_bytes(spec: ModelSpec) -> int:
    width, height = patch_size(spec)
    return 3 * width * height


def check_disk_space(folder: Path, count: int, spec: ModelSpec) -> None:
    """Raises DataError where the disk of `folder` has no space for `count` patches."""
    existing = next((p for p in (folder, *folder.absolute().parents) if p.exists()), Path.cwd())
    free, need = shutil.disk_usage(existing).free, count * _patch_bytes(spec)
    if need > free:
        raise DataError(
            f"{folder}: {count} persons need {need / 1e6:,.0f} MB on disk and {free / 1e6:,.0f} MB "
            "are free; lower the limit or choose another work folder"
        )


def cache_key(inputs: Mapping[str, Any], files: list[Path], spec: ModelSpec) -> str:
    """16 hex digits that change with the files (name, size, time), the crop and `inputs`."""
    stats = [(path.name, path.stat()) for path in files]
    crop = (spec.input_size, spec.padding, spec.crop_shrink, spec.crop_center)
    contents = {
        "format": _FORMAT,
        "files": [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats],
        "crop": crop,
        **inputs,
    }
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]


def save(
    folder: Path,
    rows: list[Row],
    order: list[int],
    *,
    counts: FindCounts,
    notes: Sequence[str] = (),
    extra: Arrays | None = None,
) -> None:
    """Write the table: `rows` as in the patch file, `order` the indices of the persons in order.

    extra: more arrays, one row for each of `order`. Raises SourceError.
    """
    table: Arrays = {
        "order": np.array(order, np.int64),
        "boxes": np.array([row.box for row in rows], np.float32).reshape(-1, 4),
        "sources": np.array([row.source for row in rows], np.str_),
        "groups": np.array([row.group for row in rows], np.int64),
        "times_s": np.array([row.time_s for row in rows], np.float64),
        "tracks": np.array([row.track for row in rows], np.int64),
        "found": np.array(json.dumps(asdict(counts))),
        "notes": np.array(json.dumps(notes)),
    }
    pixels = np.array(_pixel_digest(folder, order, len(rows)))
    path = folder / _TABLE
    with explained(path), path.open("wb") as file:
        np.savez(file, allow_pickle=False, digest=pixels, **table, **(extra or {}))


def load(folder: Path, spec: ModelSpec, extra: tuple[str, ...] = ()) -> tuple[Persons, Arrays]:
    """The persons of a folder that `save` wrote, and the extra arrays. Raises DataError."""
    try:
        with (folder / _TABLE).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            table = {name: file[name] for name in file.files}
        order = table["order"]
        width, height = patch_size(spec)
        store: UInt8 = np.zeros((0, height, width, 3), np.uint8)
        if len(table["sources"]):
            shape = (len(table["sources"]), height, width, 3)
            store = np.memmap(folder / _PIXELS, np.uint8, "r", shape=shape)
        sources = tuple(str(table["sources"][n]) for n in order)
        persons = Persons(
            patches=Patches(store, order),
            offset=offset_of(spec),
            boxes=table["boxes"][order],
            sources=sources,
            groups=table["groups"][order],
            times_s=table["times_s"][order],
            tracks=table["tracks"][order],
            spec=spec,
            fingerprint=_fingerprint(sources, str(table["digest"])),
            counts=FindCounts(**json.loads(str(table["found"]))),
            notes=tuple(json.loads(str(table.get("notes", "[]")))),
        )
        return persons, {name: table[name] for name in extra}
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{folder}: is damaged ({error}); delete it, and it is created again"
        ) from error


def _pixel_digest(folder: Path, order: list[int], count: int) -> str:
    """sha256 over the patches of `order`."""
    digest = hashlib.sha256()
    if count:
        store = np.memmap(folder / _PIXELS, np.uint8, "r").reshape(count, -1)
        for start in range(0, len(order), _BLOCK):
            digest.update(np.ascontiguousarray(store[order[start : start + _BLOCK]]).data)
    return digest.hexdigest()


def _fingerprint(sources: tuple[str, ...], pixels: str) -> str:
    return hashlib.sha256(json.dumps([sources, pixels]).encode()).hexdigest()
