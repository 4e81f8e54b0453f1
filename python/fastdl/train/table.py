"""What a reader returns: numbers by column, and the target as it was written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Table:
    """Rows read from somewhere, before anything is decided about them.

    Attributes
    ----------
    X : ndarray (N, n), float64 or uint8
        One row per example.
    values : ndarray (N,) or (N, k), or None
        The target: strings, integers or floats. None: the data have no target.
    features : list of str, or None
        Column names, where the source has them.
    target : str or int or None
        Name or position of the target column, where the source has columns.
    labels : list of str, or None
        Names of the classes 0, 1, ..., where the source has them.
    same_unit : bool
        All columns are measured in one unit (pixels), so they share one scale.
    test_start : int or None
        The source has a test part of its own, beginning at this row.
    """

    X: Array
    values: Array | None
    features: list[str] | None = None
    target: str | int | None = None
    labels: list[str] | None = None
    same_unit: bool = False
    test_start: int | None = None


def check_table(table: Table, source: str) -> Table:
    """Return the table, or raise ValueError for no rows, no columns, bad lengths, NaN or Inf."""
    rows, columns = table.X.shape
    if rows == 0 or columns == 0:
        raise ValueError(f"load_data: {source} must have rows and columns, got {table.X.shape}")
    if table.values is not None and len(table.values) != rows:
        raise ValueError(
            f"load_data: X and y of {source} must be equally long,"
            f" got {rows} and {len(table.values)}"
        )
    _check_finite(table.X, "X", source)
    if table.values is not None and table.values.dtype.kind == "f":
        _check_finite(table.values, "y", source)
    return table


def _check_finite(array: Array, name: str, source: str) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise ValueError(
            f"load_data: {name} of {source} must be finite, got NaN or Inf in row {row + 1};"
            " fill in or drop such rows"
        )
