"""DeepLabCut's multi-animal table: four header rows, a row a frame."""

from __future__ import annotations

import csv
import json
import math
import tempfile
from itertools import product
from pathlib import Path

import numpy as np

from posekit.atomic import AtomicFile
from posekit.types import Frame, Poses
from posekit.write.format import Format, person_ids
from posekit.write.header import Header


class DeepLabCut(Format[AtomicFile]):
    """CSV with the columns scorer / individuals / bodyparts / coords (x, y, likelihood).

    `pandas.read_csv(path, header=[0, 1, 2, 3], index_col=0)` reads it. Individuals are the tracks
    (or places in the frame, untracked), known at the end only: rows wait in an unnamed file in the
    same folder, so that memory stays flat. Absent persons are NaN, not empty fields: pandas takes
    a first row of empty fields for the index's name. The index is the frame, for images too.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.out = AtomicFile(path)
        self._scorer, self._parts = header.model, header.skeleton.keypoints
        self._ids: set[int] = set()
        try:
            self._rows = tempfile.TemporaryFile("w+", dir=path.parent, encoding="utf-8")  # noqa: SIM115
        except OSError:
            self.out.abort()
            raise

    def write(self, frame: Frame, poses: Poses) -> None:
        """One row, also for a frame without persons."""
        cells = {n: _fields(poses, row) for row, n in enumerate(person_ids(poses))}
        self._ids.update(cells)
        self._rows.write(json.dumps([frame.index, list(cells.items())]) + "\n")

    def finish(self) -> None:
        """Write the header, whose columns are known now, and the rows after it."""
        ids = sorted(self._ids) or [0]  # readers want a column
        names = [f"person{n}" for n in ids]
        heads = list(product([self._scorer], names, self._parts, ("x", "y", "likelihood")))
        table = csv.writer(self.out.file, lineterminator="\n")
        for level, title in enumerate(("scorer", "individuals", "bodyparts", "coords")):
            table.writerow([title, *(head[level] for head in heads)])
        absent = ",".join(["NaN"] * 3 * len(self._parts))
        self._rows.seek(0)
        for line in self._rows:
            index, items = json.loads(line)
            cells = dict(items)
            row = ",".join([str(index), *(cells.get(n, absent) for n in ids)])
            self.out.file.write(row + "\n")
        self._rows.close()

    def discard(self) -> None:
        """Close the unnamed file, which then is gone."""
        self._rows.close()


def _fields(poses: Poses, row: int) -> str:
    """x, y, likelihood of every keypoint, joined by commas."""
    values = np.concatenate([poses.points[row], poses.scores[row][:, None]], 1).reshape(-1)
    digits = (2, 2, 4) * len(poses.skeleton)
    pairs = zip(values.tolist(), digits, strict=True)
    return ",".join(f"{v:.{d}f}" if math.isfinite(v) else "NaN" for v, d in pairs)
