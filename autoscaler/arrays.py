"""The kinds of columns that stand for many revisions, and how they grow."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]
"""Places in a tuple of what a column may say."""
Words = npt.NDArray[np.uint64]
"""Items as they lie in memory, eight bytes a word."""


def grown(column: npt.NDArray[Any], row: int, fill: Any) -> npt.NDArray[Any]:
    """`column` with room for `row` along its first axis, at least twice as long when it has to grow."""
    if row < len(column):
        return column
    longer = np.full((max(row + 1, 2 * len(column)), *column.shape[1:]), fill, column.dtype)
    longer[: len(column)] = column
    return longer
