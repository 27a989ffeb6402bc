"""The video or the images that results belong to, as references relative to a page."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from posekit.errors import InputError, SourceError
from posekit.inputs.parsing import read_json
from posekit.view.results import Results
from posekit.view.source import check_source, images_folder

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
    """The source where it can be found and fits the results, else the overlay beside the page.

    source: where it lies, in place of what the results name.  Raises SourceError: it does not fit.
    """
    if source is not None:
        check_source(source, results)
    found, note = (source, "") if source else _fitting(_places(results, page), results)
    if results.files:
        return _images(page, found, note)
    overlays = _overlays(results, page)
    overlays = [each for each in overlays if found is None or not _same(each, found)]
    clips = [_clip(each, page, drawn=True, results=results) for each in overlays]
    if found is not None:
        return Media("video", (_clip(found, page), *clips))
    if not clips:
        return Media("none", note=f"{note}; skeletons are drawn on an empty ground.")
    return Media("video", tuple(clips), note=f"{note}; the overlay is shown instead.")


def _fitting(places: list[Path], results: Results) -> tuple[Path | None, str]:
    """The first place that holds the source, or why none does."""
    reasons = []
    for path in places:
        try:
            check_source(path, results)
        except SourceError as error:
            reasons.append(f"{path} was found and not used ({error})")
        else:
            return path, ""
    return None, reasons[0] if reasons else _missing(results)


def _missing(results: Results) -> str:
    name = results.origin.source or "The source"
    is_live = name.partition("://")[0].lower() in _LIVE or name.startswith("webcam")
    return f"{name} is live and was not kept" if is_live else f"{name} was not found"


def _images(page: Path, found: Path | None, note: str) -> Media:
    """Images by their names from the folder that they start from."""
    if found is None:
        return Media("none", note=f"{note}; skeletons are drawn on an empty ground.")
    return Media("images", base=_href(images_folder(found), page).rstrip("/") + "/")


def _folders_of_pattern(results: Results, beside: Path) -> list[Path]:
    """Where the images of a pattern such as `in/**/*.jpg` may lie."""
    root = Path(results.origin.source)
    while root.name and any(mark in str(root) for mark in "*?["):
        root = root.parent
    return [folder for folder in (beside / root, root) if (folder / results.files[0]).is_file()]


def _places(results: Results, page: Path) -> list[Path]:
    """Existing files or folders that may be the source, the likeliest first.

    A relative one is looked for from the results' folder, then from the current one; while a run
    writes its results, from the current one first. An overlay may have the source's own name: what
    a summary lists as written is no source.
    """
    source, beside = results.origin.source, (results.file or page).parent
    if not source or "://" in source or "\0" in source:
        return []
    path, above = Path(source).expanduser(), beside.parent
    places = [beside / path, beside / path.name, above / path, above.parent / path]
    places.insert(0 if results.file is None else len(places), path)
    places += [above / path.name, page.parent / path, page.parent / path.name]
    written = _written(results.file or page)
    try:
        found = [each for each in places if each.is_file() or each.is_dir()]
        if results.files:
            found += _folders_of_pattern(results, beside)
        resolved = [each.resolve() for each in found]
    except OSError:  # too long for a path
        return []
    first: dict[Path, Path] = {}
    for real, each in zip(resolved, found, strict=True):
        first.setdefault(real, each)
    return [each for real, each in first.items() if real not in written]


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
