"""Rows that an index names, checked: integers, slices, lists and masks of persons."""

from __future__ import annotations

import operator

import numpy as np

from posekit.errors import InputError
from posekit.inputs.parsing import shown

_WANTED = (
    "an integer, a slice of integers, a flat list or array of integers, or one boolean a person"
)


def row_of(index: object, count: int) -> int:
    """A row of `count`, negative from the end. Raises IndexError, and InputError for no integer."""
    try:
        row = operator.index(index)  # type: ignore[arg-type]  # it checks what it gets
    except TypeError:
        row = None
    if row is None or isinstance(index, bool | np.ndarray):
        raise InputError(f"persons: {_shown(index)} is no index; wanted {_WANTED}")
    if not -count <= row < count:
        raise IndexError(f"person {row}: there are {count}, counted from 0")
    return row


def no_rows(index: object, count: int) -> InputError | IndexError:
    """Why NumPy takes no rows of `count` by `index`, as the error to raise."""
    try:
        rows = np.asarray(index)
    except ValueError:  # lists of several lengths
        rows = np.zeros(())
    if rows.ndim != 1:
        return InputError(f"persons: {_shown(index)} is no index; wanted {_WANTED}")
    if rows.dtype == np.bool_:
        return InputError(f"persons: wanted a boolean for each of {count}, got {len(rows)}")
    if rows.dtype.kind not in "iu":
        return InputError(f"persons: wanted integers or booleans, got {_shown(index)}")
    row = next(row for row in rows.tolist() if not -count <= row < count)
    return IndexError(f"person {row}: there are {count}, counted from 0")


def _shown(index: object) -> str:
    return f"an array {index.shape}" if isinstance(index, np.ndarray) else shown(index)
