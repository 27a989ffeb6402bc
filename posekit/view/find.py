"""Which results a path means."""

from __future__ import annotations

from pathlib import Path

from posekit.errors import InputError, SourceError


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
        raise SourceError(
            f"{path}: holds no .jsonl results; write some by `posekit infer --format jsonl`"
        )
    return found
