"""Reads the JSON Lines that `posekit infer` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from posekit.errors import InputError, SourceError
from posekit.inputs.parsing import JSON_BYTES, number, numbers, parse_json, reason, shown
from posekit.types import Boxes, Float32, Skeleton
from posekit.view.results import Origin, Persons, Results, ResultsBuilder, empty_persons

_MAX_SIDE = 1 << 20  # px


def read_results(path: Path) -> Results:
    """The poses of a `.jsonl` file of posekit, checked line by line.

    Raises SourceError (cannot be read), InputError (another format, or damaged: names the line).
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            results = replace(read_lines(file, path), file=path)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is not text; wanted a .jsonl file that `posekit infer` wrote, or its folder"
        ) from error
    except OSError as error:
        raise SourceError(f"{path}: results cannot be read: {reason(error)}") from error
    if not len(results.frames):
        raise InputError(f"{path}: holds no frame after its header, so there is nothing to show")
    return results


def read_lines(file: TextIO, path: Path) -> Results:
    """The poses of an open file of JSON Lines, maybe of no frame.  path: for messages.

    Raises InputError, which names the line; OSError.
    """
    texts = iter(lambda: file.readline(JSON_BYTES), "")
    lines = ((n, text) for n, text in enumerate(texts, 1) if text.strip())
    builder = ResultsBuilder(_origin(next(lines, (1, ""))[1], path))
    for n, text in lines:
        where = f"{path}, line {n}"
        line = parse_json(text, name=where)
        if not isinstance(line, dict) or not isinstance(line.get("persons"), list):
            raise InputError(f"{where}: wanted a frame with its persons, got {shown(line)}")
        _add(builder, line, where)
    return builder.build()


def _origin(text: str, path: Path) -> Origin:
    """The header line."""
    where = f"{path}, line 1"
    header = parse_json(text, name=where) if text.strip() else None
    if not isinstance(header, dict) or not {"posekit", "skeleton"} <= set(header):
        raise InputError(
            f"{path}: is not JSON Lines of posekit: its first line has no `posekit` and "
            "`skeleton`; write it by `posekit infer --format jsonl`"
        )
    size, fps, stored = header.get("size"), header.get("fps"), header.get("stored_size")
    return Origin(
        str(header.get("model", "")),
        _skeleton(header["skeleton"], where),
        str(header.get("source", "")),
        None if size is None else _size(size, where),
        None if fps is None else number(fps, name=f"{where}: fps", low=0, high=1e6),
        str(header["posekit"]),
        None if stored is None else _size(stored, where),
    )


def _size(value: object, where: str) -> tuple[int, int]:
    width, height = numbers(value, name=f"{where}: size", count=2, low=1, high=_MAX_SIDE)
    return int(width), int(height)


def _add(builder: ResultsBuilder, line: Mapping[str, Any], where: str) -> None:
    """One frame's line."""
    frame = number(line.get("frame"), name=f"{where}: frame", low=0, high=1e15, whole=True)
    time_s = number(line.get("time_s"), name=f"{where}: time_s", low=-1e12, high=1e12)
    if time_s < builder.last_time_s:
        raise InputError(
            f"{where}: time_s is {time_s:g} after {builder.last_time_s:g}; wanted times that do "
            "not fall"
        )
    size, file = line.get("size"), line.get("file") or ""
    if not isinstance(file, str):
        raise InputError(f"{where}: file: wanted a text, got {shown(file)}")
    persons: list[Any] = line["persons"]
    builder.tracked &= all(isinstance(p, dict) and p.get("id") is not None for p in persons)
    builder.add(
        int(frame),
        time_s,
        _persons(persons, len(builder.origin.skeleton), where),
        size=None if size is None else _size(size, where),
        file=file,
    )


def _persons(persons: Sequence[Any], keypoints: int, where: str) -> Persons:
    if not persons:
        return empty_persons(keypoints)
    if not all(isinstance(each, dict) for each in persons):
        raise InputError(f"{where}: persons: wanted a list of objects, got {shown(persons)}")
    rows = len(persons)
    points = _array(persons, "points", (rows, keypoints, 2), where=where)
    confident = all("confidence" in each for each in persons)
    scores = _array(persons, "scores", (rows, keypoints), where=where)
    return Persons(
        _ids(persons, where),
        points,
        _array(persons, "raw_points", (rows, keypoints, 2), where=where)
        if all("raw_points" in each for each in persons)
        else points,
        scores,
        _array(persons, "confidence", scores.shape, where=where)
        if confident
        else np.full_like(scores, np.nan),
        _boxes(persons, where),
        np.nan_to_num(_array(persons, "box_score", (rows,), where=where, default=1.0)),
    )


def _boxes(persons: Sequence[Mapping[str, Any]], where: str) -> Float32:
    """(N, 4), finite and ordered. Raises InputError."""
    try:
        return Boxes(_array(persons, "box", (len(persons), 4), where=where)).xyxy
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(where) else f"{where}: {text}") from error


def _ids(persons: Sequence[Mapping[str, Any]], where: str) -> Any:
    """Track ids; the place in the frame where one has none."""
    found = [n if each.get("id") is None else each["id"] for n, each in enumerate(persons)]
    values = numbers(found, name=f"{where}: ids", low=-(2**53), high=2**53)
    return np.array(values, np.int64)


def _array(
    persons: Sequence[Mapping[str, Any]],
    key: str,
    shape: tuple[int, ...],
    *,
    where: str,
    default: float | None = None,
) -> Float32:
    """The values of `key` of all persons; null is NaN. Raises InputError, which names a person."""
    values = [each.get(key, default) for each in persons]
    try:
        array = np.array(values, np.float32)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(0, np.float32)
    if array.shape != shape:
        raise InputError(f"{where}: {_wrong(values, key, shape[1:])}")
    return array


def _wrong(values: Sequence[Any], key: str, shape: tuple[int, ...]) -> str:
    """What is wrong with the first value that is not numbers of this shape."""
    wanted = f"{' x '.join(map(str, shape))} numbers" if shape else "one number"
    for n, value in enumerate(values):
        if value is None and shape:
            return f"person {n} has no {key}; wanted {wanted}"
        try:
            found = np.array(value, np.float32).shape
        except (TypeError, ValueError, OverflowError):
            return f"person {n}: {key}: wanted {wanted}, got {shown(value)}"
        if found != shape:
            got = f"{' x '.join(map(str, found))} numbers" if found else "one number"
            return f"person {n}: {key}: wanted {wanted}, got {got}"
    return f"{key}: wanted {wanted} a person"


def _skeleton(value: object, where: str) -> Skeleton:
    if not isinstance(value, dict):
        raise InputError(f"{where}: skeleton: wanted a table, got {shown(value)}")
    try:
        return Skeleton.from_dict(value)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
