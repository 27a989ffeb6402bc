"""Several outputs that appear together or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from posekit.atomic import check_free, explained, make_folder, partial, take_back


@contextlib.contextmanager
def together(outputs: Sequence[Path], *, overwrite: bool) -> Iterator[Path]:
    """A hidden folder beside the outputs; files that the block writes there replace them.

    After an exception nothing has changed. An output that the block did not write is removed, since
    it belonged to the replaced set. All share a folder; messages name the first.
    Raises SourceError (exists, cannot be written, disk full).
    """
    first = outputs[0]
    check_free(*outputs, overwrite=overwrite)
    folder = partial(first)
    new: list[Path] = []
    try:
        with explained(first):
            new = make_folder(first.parent)
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
            folder.mkdir()
            yield folder
            _swap(folder, outputs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        take_back(new)  # where the outputs are in it, it stays


def _swap(folder: Path, outputs: Sequence[Path]) -> None:
    """Move old outputs into the folder and new ones out of it; undone where a rename fails."""
    done: list[tuple[Path, Path]] = []
    try:
        for path in outputs:
            for old, new in ((path, folder / f"{path.name}.old"), (folder / path.name, path)):
                if old.exists():
                    old.replace(new)
                    done.append((old, new))
    except OSError:
        for old, new in reversed(done):
            new.replace(old)
        raise
