"""The page itself: template, style and script of this package around packed results."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from posekit.atomic import AtomicFile, explained
from posekit.errors import InputError
from posekit.version import __version__
from posekit.view.events import pair_tracks
from posekit.view.media import find_media
from posekit.view.pack import pack, thinned
from posekit.view.results import Results

SCRIPTS = ("data", "player", "stage", "charts", "tables", "main")
"""Parts of the page's script, in the order in which they run."""
_SLACK_S = 1.0  # between the ends of two results of the same clip
_PART = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True)
class ViewOptions:
    """How results are shown.

    source: the video or folder of images, where results name another place.
    overwrite: replace an existing page.
    on_note: is called with each sentence on what the page does not show or shows otherwise.
    """

    source: Path | None = None
    overwrite: bool = False
    on_note: Callable[[str], object] = lambda _: None


def page_path(results_file: Path) -> Path:
    """The page beside a file of results: `clip.jsonl` gives `clip.html`."""
    return results_file.with_name(results_file.name.removesuffix(".jsonl") + ".html")


def write_page(
    path: Path, results: Sequence[Results], options: ViewOptions = ViewOptions()
) -> Path:
    """Write the page of one result, or of two of the same clip: before, after.

    Raises SourceError (exists, cannot be written, `source` does not fit the results), InputError
    (not of the same clip).
    """
    file = AtomicFile(path, overwrite=options.overwrite)
    with file, explained(path):
        file.file.write(page_of(path, results, options))
    return path


def page_of(path: Path, results: Sequence[Results], options: ViewOptions = ViewOptions()) -> str:
    """The document that is to lie at `path`; nothing is written. Raises InputError, SourceError."""
    thin = [thinned(each) for each in results]
    sides = [each for each, _ in thin]
    _check_sides(results)
    media = find_media(sides[-1], path, source=options.source)
    notes = _notes(results, [step for _, step in thin])
    for note in [media.note, *notes] if media.note else notes:
        options.on_note(f"{path}: {note}")
    packed = [pack(each) for each in sides]
    meta = {
        "posekit": __version__,
        "title": _title(sides[-1], path),
        "media": media.to_dict(),
        "sides": [facts for facts, _ in packed],
        "pairs": _pairs(sides),
        "notes": notes,
    }
    arrays = [
        f'<script type="text/plain" id="side{n}-{name}">{text}</script>'
        for n, (_, texts) in enumerate(packed)
        for name, text in texts.items()
    ]
    return _filled(meta, "\n".join(arrays))


def _check_sides(sides: Sequence[Results]) -> None:
    if len(sides) not in (1, 2):
        raise InputError(f"view: wanted one or two results, got {len(sides)}")
    sizes = {each.size for each in sides}
    if len(sizes) > 1:
        shown = " and ".join(f"{w} x {h}" for w, h in sorted(sizes))
        raise InputError(f"view: frames of {shown} px cannot be of the same clip; wanted one clip")
    if len(sides) == 2:
        _check_overlap(*(_window(each) for each in sides))


def _window(results: Results) -> tuple[float, float]:
    """(time of the first frame, of the last), seconds; of no frame: all of time."""
    times_s = results.times_s
    return (float(times_s[0]), float(times_s[-1])) if len(times_s) else (-math.inf, math.inf)


def _check_overlap(before: tuple[float, float], after: tuple[float, float]) -> None:
    if max(before[0], after[0]) > min(before[1], after[1]):
        raise InputError(
            f"view: the results before are of {_span(before)} and those after of {_span(after)}: "
            "there is no time in both to compare; wanted results of the same part of one clip"
        )


def _partial_overlap(before: tuple[float, float], after: tuple[float, float]) -> list[str]:
    """A note where one begins or ends more than a second apart from the other."""
    apart_s = [abs(one - other) for one, other in zip(before, after, strict=True)]
    if not _SLACK_S < max(apart_s) < math.inf:
        return []
    both = max(before[0], after[0]), min(before[1], after[1])
    return [
        f"The results before are of {_span(before)} and those after of {_span(after)}: only "
        f"{_span(both)} can be compared."
    ]


def _span(window: tuple[float, float]) -> str:
    return f"{window[0]:.2f} to {window[1]:.2f} s"


def _title(results: Results, path: Path) -> str:
    name = re.split(r"[\\/]", results.origin.source.rstrip("\\/"))[-1]
    return name or path.name.removesuffix(".html")


def _pairs(sides: Sequence[Results]) -> list[list[int]]:
    """[track of the second side, track of the first] that show the same person."""
    return [list(each) for each in pair_tracks(*sides).items()] if len(sides) == 2 else []


def _notes(sides: Sequence[Results], steps: Sequence[int]) -> list[str]:
    notes = [] if all(len(each.frames) for each in sides) else ["The results hold no frame."]
    if not all(each.tracked for each in sides):
        notes.append("Persons were not tracked: they are numbered by their place in each frame.")
    if max(steps) > 1:
        notes.append(
            f"The results are long: each {max(steps)}th frame is shown. The results file has all."
        )
    if len(sides) == 2:
        notes += _partial_overlap(*(_window(each) for each in sides))
    sources = {each.origin.source for each in sides}
    if len(sources) > 1:
        notes.append("The two results name different sources: " + " and ".join(sorted(sources)))
    return notes


def _filled(meta: dict[str, Any], arrays: str) -> str:
    """The template with its parts; texts of results cannot end an element."""
    script = "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
    style = _asset("style.css")
    parts = {
        "title": escape(f"{meta['title']} – posekit view"),
        "script_hash": _hash(script),
        "style_hash": _hash(style),
        "style": style,
        "script": script,
        "meta": _script_safe(json.dumps(meta, ensure_ascii=False, allow_nan=False)),
        "arrays": arrays,
    }
    return _PART.sub(lambda found: parts[found[1]], _asset("page.html"))


def _script_safe(text: str) -> str:
    """JSON that holds no character by which HTML could end the element around it."""
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _hash(text: str) -> str:
    """For the content security policy: only this text runs."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _asset(name: str) -> str:
    return (files("posekit.view") / "page" / name).read_text(encoding="utf-8")
