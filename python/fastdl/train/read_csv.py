"""Reading ``.csv``: with or without a header, any target column, errors with line numbers."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastdl.train.table import Array, Table

Rows = list[list[str]]


@dataclass(frozen=True)
class Schema:
    """The columns a trained model expects: their number, names (if any) and its target."""

    columns: int
    features: list[str] | None = None
    target: str | int | None = None


@dataclass(frozen=True)
class _Sheet:
    path: Path
    names: list[str] | None
    rows: Rows
    lines: list[int]

    @property
    def width(self) -> int:
        return len(self.rows[0])


def read_csv(
    path: Path,
    target: str | int | None = None,
    header: bool | None = None,
    schema: Schema | None = None,
) -> Table:
    """Read a CSV file (comma, semicolon or tab; UTF-8).

    Parameters
    ----------
    path : Path
        The file.
    target : str or int, optional
        Name or position (negative: from the end) of the target column; default: the last.
    header : bool, optional
        Whether the first line holds names; default: found out from the cells.
    schema : Schema, optional
        What a model was trained on; columns are then matched by name, else by position, and
        the target may be absent.

    Raises
    ------
    ValueError
        With file and line: ragged lines, cells that are not finite numbers, unknown columns.
    """
    rows, lines = _read_rows(path)
    if header is None:
        header = _has_header(rows, target)
    names = [cell.strip() for cell in rows[0]] if header else None
    sheet = _Sheet(path, names, rows[1:] if header else rows, lines[1:] if header else lines)
    if not sheet.rows:
        raise ValueError(f"load_data: {path} must have rows below its header, got none")
    chosen, column = _choose(sheet, target, schema)
    X = np.stack([_numbers(sheet, j) for j in chosen], axis=1)
    values = None if column is None else _target(sheet, column)
    if names is None:
        return Table(X, values, None, column)
    return Table(X, values, [names[j] for j in chosen], None if column is None else names[column])


def _read_rows(path: Path) -> tuple[Rows, list[int]]:
    rows: Rows = []
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = _delimiter(file.readline())
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            for row in reader:
                if row and (len(row) > 1 or row[0].strip()):
                    rows.append(row)
                    lines.append(reader.line_num)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(
            f"load_data: {path} must be a CSV file in UTF-8, got {error} near line"
            f" {lines[-1] + 1 if lines else 1}"
        ) from error
    _check_shape(path, rows, lines)
    return rows, lines


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def _check_shape(path: Path, rows: Rows, lines: list[int]) -> None:
    if not rows:
        raise ValueError(f"load_data: {path} must have rows, got an empty file")
    width = len(rows[0])
    for row, line in zip(rows, lines, strict=True):
        if len(row) != width:
            raise ValueError(
                f"load_data: {path} line {line} must have {width} cells (as the first line),"
                f" got {len(row)}"
            )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _has_header(rows: Rows, target: str | int | None) -> bool:
    """A header has a word above a column of numbers, or is what the target's name is found in."""
    first = [cell.strip() for cell in rows[0]]
    if isinstance(target, str) and target in first:
        return True
    if len(rows) == 1:
        return not any(_is_number(cell) for cell in first)
    return any(
        not _is_number(name) and _is_number(below)
        for name, below in zip(first, rows[1], strict=True)
    )


def _choose(
    sheet: _Sheet, target: str | int | None, schema: Schema | None
) -> tuple[list[int], int | None]:
    """Return the positions of the feature columns, and of the target column if there is one."""
    if schema is None:
        column = _position(sheet, -1 if target is None else target)
        if sheet.width < 2:
            raise ValueError(
                f"load_data: {sheet.path} must have a feature and a target column, got one column"
            )
        return [j for j in range(sheet.width) if j != column], column
    wanted = schema.target if target is None else target
    if sheet.names is not None and schema.features is not None:
        return _choose_by_name(sheet, sheet.names, schema.features, wanted, target is not None)
    if sheet.width == schema.columns and target is None:
        return list(range(sheet.width)), None
    if sheet.width != schema.columns + 1:
        raise ValueError(
            f"load_data: {sheet.path} must have the model's {schema.columns} feature columns and"
            f" at most one target column, got {sheet.width} columns"
        )
    column = _position(sheet, wanted if isinstance(wanted, int) or target is not None else -1)
    return [j for j in range(sheet.width) if j != column], column


def _choose_by_name(
    sheet: _Sheet, names: list[str], features: list[str], target: str | int | None, strict: bool
) -> tuple[list[int], int | None]:
    missing = [name for name in features if name not in names]
    if missing:
        raise ValueError(
            f"load_data: {sheet.path} must have the model's columns, got none named {missing[0]!r}"
        )
    absent = target is None or (not strict and target not in names)
    return [names.index(name) for name in features], None if absent else _position(sheet, target)


def _position(sheet: _Sheet, target: str | int | None) -> int:
    """Turn a name, or a position that may be negative, into a position."""
    names = sheet.names or []
    if isinstance(target, str) and names.count(target) == 1:
        return names.index(target)
    try:
        index = int(target if target is not None else -1)
    except ValueError:
        known = f"one of {names}" if names else "a position (the file has no header)"
        raise ValueError(
            f"load_data: target of {sheet.path} must be {known}, got {target!r}"
        ) from None
    if not -sheet.width <= index < sheet.width:
        raise ValueError(
            f"load_data: target of {sheet.path} must be a name or a position in"
            f" 0..{sheet.width - 1}, got {target!r}"
        )
    return index % sheet.width


def _numbers(sheet: _Sheet, column: int) -> Array:
    try:
        numbers = np.array([float(row[column]) for row in sheet.rows])
        if np.isfinite(numbers).all():
            return numbers
    except ValueError:
        pass
    raise _bad_cell(sheet, column)


def _bad_cell(sheet: _Sheet, column: int) -> ValueError:
    """Build the error for the first cell of a column that is not a finite number."""
    name = repr(sheet.names[column]) if sheet.names else str(column)
    for row, line in zip(sheet.rows, sheet.lines, strict=True):
        cell = row[column].strip()
        if not _is_number(cell) or not np.isfinite(float(cell)):
            got = f"got {cell[:40]!r}" if cell else "got an empty cell"
            return ValueError(
                f"load_data: {sheet.path} line {line}: column {name} must be a finite number,"
                f" {got}; fill in, encode or drop it"
            )
    raise AssertionError("no bad cell")


def _target(sheet: _Sheet, column: int) -> Array:
    """Return the target as floats if every cell is a number, else as strings."""
    cells = [row[column].strip() for row in sheet.rows]
    if all(_is_number(cell) for cell in cells):
        return _numbers(sheet, column)
    if "" in cells:
        raise ValueError(
            f"load_data: {sheet.path} line {sheet.lines[cells.index('')]}: the target must have"
            " a value, got an empty cell; fill in or drop the row"
        )
    return np.array(cells)
