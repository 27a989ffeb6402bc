"""Hidden files and folders: their names, how they are made, and the names that they get."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from pathlib import Path

from posekit.atomic.checks import check_free

PARTIAL, OLD, SET = "partial", "old", "set"
"""Endings: an output in the making, what it replaces, and several in the making."""

NEW = "new"
"""Folder of a set: its outputs in the making. Those that they replace are in OLD."""

_MOVES = "moves.json"
_MOST_BYTES = 1 << 20
_LONGEST_NAME = 200  # bytes; the hidden name is a little longer, and file systems stop at 255
_under_way: set[Path] = set()


def beside(path: Path, ending: str) -> Path:
    """A hidden name beside `path`, the same each time."""
    name = path.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return path.with_name(f".{name}.{ending}")


def unique(path: Path, ending: str) -> Path:
    """Another hidden name beside `path` each time."""
    return beside(path, f"{secrets.token_hex(4)}.{ending}")


def create_file(path: Path) -> tuple[int, Path]:
    """A new hidden file beside `path`, open for writing: its descriptor and path.

    Never one that is there already, and no link is followed.  Raises OSError.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    while True:
        place = unique(path, PARTIAL)
        try:
            number = os.open(place, flags, 0o666)
        except FileExistsError:
            continue
        _under_way.add(place)
        return number, place


def create_folder(path: Path, ending: str = PARTIAL) -> Path:
    """A new hidden folder beside `path`. Raises OSError."""
    place = unique(path, ending)
    place.mkdir()
    _under_way.add(place)
    return place


def discard(place: Path) -> None:
    """Remove a hidden file or folder; one that is gone is fine. Raises OSError."""
    remove(place)
    _under_way.discard(place)


def discard_all() -> None:
    """Remove what this process has under way, as far as that is possible."""
    for place in list(_under_way):
        with contextlib.suppress(OSError):
            discard(place)


def give_name(place: Path, path: Path, *, replace: bool) -> None:
    """Rename a hidden file or folder; `replace` False: never onto something.

    Raises SourceError (taken), OSError.
    """
    if replace:
        place.replace(path)
    elif place.is_dir() and not place.is_symlink():
        check_free(path, overwrite=False)
        place.rename(path)  # onto a folder with something in it this fails
    else:
        _rename_to_free(place, path)
    _under_way.discard(place)


def _rename_to_free(place: Path, path: Path) -> None:
    """Rename a file in one step, unless the name is taken. Raises SourceError, OSError."""
    try:
        if os.name == "nt":
            place.rename(path)  # refuses a taken name there
        else:
            os.link(place, path, follow_symlinks=False)
            place.unlink()
    except OSError:
        check_free(path, overwrite=False)
        if not place.exists() or path.parent.stat().st_dev != place.stat().st_dev:
            raise
        place.replace(path)  # a file system without hard links


def clear_leftovers(path: Path, *, older_s: float = 0.0) -> None:
    """Remove what a killed run left beside `path`, whose lock is held; bring back what it moved.

    older_s: only what is older than this.  Raises OSError.
    """
    start = re.escape(beside(path, "").name)
    pattern = re.compile(rf"{start}[0-9a-f]{{8}}\.({PARTIAL}|{OLD}|{SET})")
    for entry in sorted(path.parent.iterdir()):
        found = pattern.fullmatch(entry.name)
        if found is None or time.time() - entry.lstat().st_mtime < older_s:
            continue
        if found[1] == OLD and not os.path.lexists(path):
            entry.replace(path)
        elif found[1] == SET:
            _roll_back(entry)
        remove(entry)


def note_moves(folder: Path) -> None:
    """Note in a set's folder what is about to get its name, for `clear_leftovers`."""
    new = {path.name: path.lstat().st_ino for path in (folder / NEW).iterdir()}
    (folder / _MOVES).write_text(json.dumps(new), encoding="utf-8")


def _roll_back(folder: Path) -> None:
    """Undo the renames of a set that was killed between its first and its last one.

    Others may write in the same folder: no link is followed, and only files beside it are touched.
    """
    places = (folder, folder / NEW, folder / OLD, folder / _MOVES)
    if any(place.is_symlink() or not place.exists() for place in places):
        return
    if not any((folder / NEW).iterdir()):
        return
    for name, number in _noted_moves(folder / _MOVES).items():
        path = folder.parent / name
        if os.path.lexists(path) and path.lstat().st_ino == number:
            remove(path)
    for old in (folder / OLD).iterdir():
        if not os.path.lexists(folder.parent / old.name):
            old.replace(folder.parent / old.name)


def _noted_moves(file: Path) -> dict[str, int]:
    """What `note_moves` wrote: inode by plain file name; nothing where it holds anything else."""
    try:
        noted = json.loads(file.read_bytes()[:_MOST_BYTES])
    except (ValueError, RecursionError):
        return {}
    entries = noted if isinstance(noted, dict) else {}
    is_plain = all(_is_plain(name) and isinstance(entries[name], int) for name in entries)
    return entries if is_plain else {}


def _is_plain(name: str) -> bool:
    """Whether it names a file of a folder, and nothing outside of it."""
    return name not in ("", "..") and Path(name).name == name and "\0" not in name


def remove(path: Path) -> None:
    """Delete a file or a folder with all that is in it; nothing there is fine. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_folder(path: Path) -> list[Path]:
    """Make a folder and those above it; returns the ones that were not there, innermost first."""
    new = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return new


def remove_empty(folders: list[Path]) -> None:
    """Remove folders that `make_folder` made, as far as nothing else is in them by now."""
    for folder in folders:
        with contextlib.suppress(OSError):  # something is in it, or it is gone already
            folder.rmdir()
