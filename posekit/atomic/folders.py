"""A folder or file of its own for each run: numbered on where the name is taken."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from posekit.atomic.checks import explained
from posekit.atomic.hidden import make_folder, remove_empty

_TRIES = 5


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that was not there: `path`, or the first of `path-2`, `path-3`, … that is free.

    Two runs at the same time never get the same one. Where nothing is in it at the end of the
    block it is removed, and so are those above it that were made for it. Raises SourceError.
    """
    with explained(path):
        made = _made(path)
    try:
        yield made[0]
    finally:
        remove_empty(made)


def free_name(path: Path) -> Path:
    """`path`, or the first of `stem-2.suffix`, `stem-3.suffix`, … that is free; makes nothing."""
    return next(each for each in _numbered(path, path.suffix) if not os.path.lexists(each))


def _numbered(path: Path, suffix: str = "") -> Iterator[Path]:
    """`path`, then with -2, -3, … before `suffix`."""
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.name.removesuffix(suffix)}-{number}{suffix}")


def _made(path: Path) -> list[Path]:
    """The new folder, then those above it that were not there either. Raises OSError."""
    for tries in reversed(range(_TRIES)):
        above = make_folder(path.parent)
        try:
            return [_first_free(path), *above]
        except FileNotFoundError:  # a run that failed took the folder above back
            if not tries:
                raise
    raise AssertionError("the last try returns or raises")


def _first_free(path: Path) -> Path:
    for place in _numbered(path):
        try:
            place.mkdir()
        except FileExistsError:
            continue
        return place
    raise AssertionError("numbers do not end")
