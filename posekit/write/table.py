"""Tidy tables: one row a keypoint, as CSV or Parquet."""

from __future__ import annotations

import contextlib
import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posekit.atomic import AtomicFile
from posekit.errors import MissingExtraError
from posekit.types import Frame, Poses
from posekit.write.format import Format, person_ids, strict_json
from posekit.write.header import Header

COLUMNS = ("frame", "time_s", "id", "keypoint", "x", "y", "score", "raw_x", "raw_y")
_FORMATS = {"x": "%.2f", "y": "%.2f", "score": "%.4f", "raw_x": "%.2f", "raw_y": "%.2f"}
_GROUP = 20_000  # rows gathered before they are written: 2 MB, and 20 in pyarrow


def columns(frame: Frame, poses: Poses) -> dict[str, NDArray[Any]]:
    """One frame as N * K rows of COLUMNS, and `file` for images.

    id: the track, or the place in the frame where persons are not tracked.
    """
    count = len(poses.skeleton)
    rows = len(poses) * count
    points = poses.points.reshape(-1, 2)
    raw = points if poses.raw_points is None else poses.raw_points.reshape(-1, 2)
    table = {
        "frame": np.full(rows, frame.index, np.int64),
        "time_s": np.full(rows, round(frame.time_s, 6)),
        "id": np.repeat(np.array(person_ids(poses), np.int64), count),
        "keypoint": np.tile(np.array(poses.skeleton.keypoints, object), len(poses)),
        "x": points[:, 0],
        "y": points[:, 1],
        "score": poses.scores.reshape(-1),
        "raw_x": raw[:, 0],
        "raw_y": raw[:, 1],
    }
    return {**table, "file": np.full(rows, frame.name, object)} if frame.name else table


class Csv(Format[AtomicFile]):
    """Comma-separated with one header row; a number that is not finite is an empty field.

    The first frame decides whether there is a column `file`. Pixels have two decimals, scores four.
    """

    def __init__(self, path: Path, header: Header) -> None:
        del header  # the format has no place for it
        self.out = AtomicFile(path)
        self._writer = csv.writer(self.out.file, lineterminator="\n")
        self._names: tuple[str, ...] = ()

    def write(self, frame: Frame, poses: Poses) -> None:
        """N * K rows."""
        table = columns(frame, poses)
        if not self._names:
            self._names = tuple(table)
            self._writer.writerow(self._names)
        texts = [_texts(name, table[name]) for name in self._names]
        self._writer.writerows(zip(*texts, strict=True))

    def finish(self) -> None:
        """Write the header row where no frame came."""
        if not self._names:
            self._writer.writerow(COLUMNS)


def _texts(name: str, values: NDArray[Any]) -> list[Any]:
    if name not in _FORMATS:
        return list(values.tolist())
    pattern = _FORMATS[name]
    return [pattern % value if math.isfinite(value) else "" for value in values.tolist()]


class Parquet(Format[AtomicFile]):
    """The same columns, unrounded (float32), in row groups; the file's metadata holds the header.

    `posekit` in the schema's metadata is the JSON Lines header. Raises MissingExtraError.
    """

    def __init__(self, path: Path, header: Header) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet
        except ImportError as error:
            raise MissingExtraError(
                "--format parquet needs pyarrow: pip install 'posekit[parquet]'"
            ) from error
        self._arrow: Any = pa
        self._header = {"posekit": strict_json(header.to_dict())}
        self._tables: list[dict[str, NDArray[Any]]] = []
        self._rows = 0
        self._writer: Any = None
        self.out = AtomicFile(path, "wb")

    def write(self, frame: Frame, poses: Poses) -> None:
        """N * K rows, written when enough of them are there."""
        if self._writer is None:
            self._begin(named=bool(frame.name))
        self._tables.append(columns(frame, poses))
        self._rows += self._tables[-1]["frame"].size
        if self._rows >= _GROUP:
            self._flush()

    def finish(self) -> None:
        """Write the last rows and the footer."""
        if self._writer is None:
            self._begin(named=False)
        self._flush()
        self._writer.close()

    def discard(self) -> None:
        """Close the writer, which else would do so when it is collected, into a closed file."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()

    def _begin(self, *, named: bool) -> None:
        arrow = self._arrow
        kinds = {"frame": arrow.int64(), "time_s": arrow.float64(), "id": arrow.int64()}
        kinds["keypoint"] = arrow.string()
        kinds |= {name: arrow.float32() for name in _FORMATS}
        if named:
            kinds["file"] = arrow.string()
        schema = arrow.schema(list(kinds.items()), metadata=self._header)
        self._writer = arrow.parquet.ParquetWriter(self.out.file, schema)

    def _flush(self) -> None:
        if not self._tables:
            return
        schema = self._writer.schema
        joined = [np.concatenate([table[name] for table in self._tables]) for name in schema.names]
        arrays = [self._array(a, kind) for a, kind in zip(joined, schema.types, strict=True)]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=schema))
        self._tables, self._rows = [], 0

    def _array(self, values: NDArray[Any], kind: Any) -> Any:
        """A column of this type from its bytes: `pyarrow.array` would load pandas, 75 MB."""
        buffers: list[Any] = [values]
        if values.dtype == object:
            texts = [text.encode() for text in values.tolist()]
            ends = np.cumsum([0, *map(len, texts)], dtype=np.int32)
            buffers = [ends, b"".join(texts)]
        taken = [None, *map(self._arrow.py_buffer, buffers)]  # None: no value is missing
        return self._arrow.Array.from_buffers(kind, len(values), taken)
