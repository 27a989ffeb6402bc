"""Which results a path means."""

from __future__ import annotations

from pathlib import Path

from posekit.errors import InputError, SourceError
from posekit.video.timeline import listed


def find_results(path: Path) -> list[Path]:
    """The `.jsonl` files of a folder, by name, or the one file. Raises SourceError, InputError."""
    if path.suffix.lower() == ".posekit":
        raise InputError(
            f"{path}: is a model; add --clip VIDEO to see it beside the model it was adapted from"
        )
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise SourceError(f"{path}: no such file or folder; wanted results of `posekit infer`")
    found = sorted(each for each in path.glob("*.jsonl") if not each.name.startswith("."))
    if not found:
        raise SourceError(f"{path}: holds no .jsonl results{_elsewhere(path)}")
    return found


def _elsewhere(folder: Path) -> str:
    """The end of the sentence on a folder without results: what lies there, and what to do."""
    below = [*folder.glob("*/*.jsonl"), *folder.glob("*/*/*.jsonl")]
    if below:
        folders = listed([str(each) for each in sorted({each.parent for each in below})])
        return f" itself; results lie in its folders {folders}; name one of them"
    pages = sorted([*folder.glob("*.html"), *folder.glob("*/*.html")])
    if pages:
        return (
            f", only the page {listed([str(each) for each in pages])}; open it in a browser, or "
            "write results by `posekit infer --format jsonl`"
        )
    return "; write some by `posekit infer --format jsonl`"
