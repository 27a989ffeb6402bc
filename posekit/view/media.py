"""The video or the images that results belong to, as references relative to a page."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from posekit.errors import InputError
from posekit.inputs.parsing import read_json
from posekit.view.results import Results

_LIVE = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "udp", "tcp", "srt")


@dataclass(frozen=True)
class Clip:
    """A file that a browser may be able to play.

    href: relative to the page, percent-encoded.  name: for people.
    drawn: whether skeletons are drawn into it already.  shift_s: its time 0 on the source's clock.
    """

    href: str
    name: str
    drawn: bool = False
    shift_s: float = 0.0


@dataclass(frozen=True)
class Media:
    """What lies under the skeletons.

    kind: video: the first of `clips` that plays; images: `base` and each frame's file; none.
    note: why it is not the source, one sentence, or "".
    """

    kind: Literal["video", "images", "none"]
    clips: tuple[Clip, ...] = ()
    base: str = ""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the page."""
        clips = [vars(each) for each in self.clips]
        return {"kind": self.kind, "clips": clips, "base": self.base, "note": self.note}


def find_media(results: Results, page: Path, *, source: Path | None = None) -> Media:
    """The source where it can be found from the page's folder, else the overlay beside the page.

    source: where it lies, in place of what the results name.
    """
    if results.files:
        return _images(results, page, source)
    found = source if source is not None else _locate(results, page)
    overlays = _overlays(results, page)
    overlays = [each for each in overlays if found is None or not _same(each, found)]
    clips = [_clip(each, page, drawn=True, results=results) for each in overlays]
    if found is not None:
        clips.insert(0, _clip(found, page))
    if not clips:
        return Media("none", note=f"{_missing(results)}; skeletons are drawn on an empty ground.")
    note = "" if found is not None else f"{_missing(results)}; the overlay is shown instead."
    return Media("video", tuple(clips), note=note)


def _missing(results: Results) -> str:
    name = results.origin.source or "The source"
    is_live = name.partition("://")[0].lower() in _LIVE or name.startswith("webcam")
    return f"{name} is live and was not kept" if is_live else f"{name} was not found"


def _images(results: Results, page: Path, source: Path | None) -> Media:
    """Images by their names from the folder that they start from."""
    found = source if source is not None else _locate(results, page)
    if found is None:
        found = _folder_of_pattern(results, page.parent)
    if found is None:
        return Media("none", note=f"{_missing(results)}; skeletons are drawn on an empty ground.")
    folder = found if found.is_dir() else found.parent
    return Media("images", base=_href(folder, page).rstrip("/") + "/")


def _folder_of_pattern(results: Results, beside: Path) -> Path | None:
    """The folder in which the images of a pattern such as `in/**/*.jpg` lie."""
    root = Path(results.origin.source)
    while root.name and any(mark in str(root) for mark in "*?["):
        root = root.parent
    for folder in (root, beside / root):
        if (folder / results.files[0]).is_file():
            return folder
    return None


def _locate(results: Results, page: Path) -> Path | None:
    """The source as it was named: from here, from where its run may have been, or beside the page.

    An overlay may have the source's own name: what a summary lists as written is no source.
    """
    source, beside = results.origin.source, page.parent
    if not source or "://" in source or "\0" in source:
        return None
    path, above = Path(source), beside.parent
    places = [path.expanduser(), beside / path, beside / path.name]
    places += [above / path, above.parent / path, above / path.name]
    written = _written(results.file or page)
    try:
        found = (each for each in places if each.exists() and each.resolve() not in written)
        return next(found, None)
    except OSError:  # too long for a path
        return None


def _written(results_file: Path) -> set[Path]:
    """What the run that wrote these results says that it wrote; nothing without a summary."""
    folder, found = results_file.parent, set()
    for name in (f"{results_file.stem}.summary.json", "summary.json"):
        try:
            sources = read_json(folder / name)["sources"]
            found |= {folder / str(each) for source in sources for each in source["outputs"]}
        except (InputError, KeyError, TypeError):  # no summary, or not one of posekit's
            continue
    return {path.resolve() for path in found}


def _overlays(results: Results, page: Path) -> list[Path]:
    """Overlays that `posekit infer` wrote beside its results, under the same stem."""
    base = results.file or page
    places = (base.with_name(f"{base.stem}{each}") for each in (".mp4", ".webm"))
    return [path for path in places if path.is_file()]


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _clip(path: Path, page: Path, *, drawn: bool = False, results: Results | None = None) -> Clip:
    shift_s = float(results.times_s[0]) if results is not None and len(results.frames) else 0.0
    return Clip(_href(path, page), path.name, drawn, shift_s)


def _href(path: Path, page: Path) -> str:
    """A reference that no name can turn into another scheme, host, query or fragment."""
    target, folder = path.resolve(), page.parent.resolve()
    try:
        relative = Path(os.path.relpath(target, folder))
    except ValueError:  # another drive
        return target.as_uri()
    return "./" + quote(relative.as_posix())
