"""All outputs of one source, opened, written, finished and named together."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posekit.atomic import check_free, explained
from posekit.errors import InputError
from posekit.types import Frame, Poses
from posekit.write.coco import Coco
from posekit.write.dlc import DeepLabCut
from posekit.write.format import Format
from posekit.write.header import Header
from posekit.write.jsonl import JsonLines
from posekit.write.labelstudio import LabelStudio
from posekit.write.openpose import OpenPose
from posekit.write.page import Page
from posekit.write.table import Csv, Parquet

SUFFIXES = {
    "jsonl": ".jsonl",
    "coco": ".coco.json",
    "csv": ".csv",
    "parquet": ".parquet",
    "openpose": "_json",
    "labelstudio": ".labelstudio.json",
    "dlc": ".dlc.csv",
    "html": ".html",
}


class Writers:
    """The outputs of one source. Not for several threads at once.

    Nothing has its name before `close`; what `write` has taken by then, also after an interruption,
    is in complete files. After a SourceError call `abort`. Both may be called again.
    """

    def __init__(self, formats: list[Format[Any]]) -> None:
        self._formats = formats
        self.paths = [each.out.path for each in formats]

    def write(self, frame: Frame, poses: Poses) -> None:
        """Append one frame to each. Raises SourceError: full disk, folder gone."""
        for each in self._formats:
            with explained(each.out.path):
                each.write(frame, poses)

    def close(self) -> list[Path]:
        """Finish every output, then give each its name; returns the paths. Raises SourceError."""
        formats, self._formats = self._formats, []
        try:
            for each in formats:
                with explained(each.out.path):
                    each.finish()
            for each in formats:
                each.out.commit()
        except BaseException:
            _discard(formats)
            raise
        return self.paths

    def keep_incomplete(self) -> list[Path]:
        """Finish every output under a name that ends in `.incomplete`; returns the paths.

        Raises SourceError; nothing is left then.
        """
        formats, self._formats = self._formats, []
        try:
            for each in formats:
                with explained(each.out.path):
                    each.finish()
            return [each.out.keep_incomplete() for each in formats]
        except BaseException:
            _discard(formats)
            raise

    def abort(self) -> None:
        """Remove what was written; files that stood there before are untouched."""
        formats, self._formats = self._formats, []
        _discard(formats)


def open_writers(
    formats: Sequence[str], folder: Path, stem: str, *, header: Header, overwrite: bool = False
) -> Writers:
    """Open `<folder>/<stem>` in each of `formats` (see SUFFIXES); twice the same counts once.

    Nothing is opened unless all can be. Raises InputError (unknown format), SourceError (exists,
    cannot be written), MissingExtraError.
    """
    paths = output_paths(formats, folder, stem)
    check_free(*paths.values(), overwrite=overwrite)
    opened: list[Format[Any]] = []
    try:
        for name, path in paths.items():
            with explained(path):
                opened.append(_open(name, path, header))
    except BaseException:
        _discard(opened)
        raise
    return Writers(opened)


def output_paths(formats: Sequence[str], folder: Path, stem: str) -> dict[str, Path]:
    """What `open_writers` writes, by format. Raises InputError for an unknown one."""
    return {name: folder / f"{stem}{_suffix(name)}" for name in formats}


def _suffix(name: str) -> str:
    if name in SUFFIXES:
        return SUFFIXES[name]
    nearest = difflib.get_close_matches(name, SUFFIXES, n=1, cutoff=0.4)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    raise InputError(f"format {name!r}: {hint}There are {', '.join(SUFFIXES)}")


def _open(name: str, path: Path, header: Header) -> Format[Any]:
    match name:
        case "jsonl":
            return JsonLines(path, header)
        case "coco":
            return Coco(path, header)
        case "csv":
            return Csv(path, header)
        case "parquet":
            return Parquet(path, header)
        case "openpose":
            return OpenPose(path, header)
        case "labelstudio":
            return LabelStudio(path, header)
        case "html":
            return Page(path, header)
        case _:
            return DeepLabCut(path, header)


def _discard(formats: list[Format[Any]]) -> None:
    for each in reversed(formats):  # the first may have made the folder
        # on the way out of an error, which is the one to report
        with contextlib.suppress(OSError):
            each.discard()
        each.out.abort()
