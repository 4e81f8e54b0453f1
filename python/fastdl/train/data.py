"""Data sets by name or file, a split that never changes, and standardisation.

>>> data = load_data("digits")
>>> part = data.split(test_fraction=0.25, seed=0)
>>> part.X_train.shape, part.y_test.dtype
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from fastdl.train.read_arrays import BUNDLED, read_bundled, read_idx_folder, read_npz
from fastdl.train.read_csv import Schema, read_csv
from fastdl.train.table import Array, Table, check_table

Task = Literal["classification", "regression"]
Float32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_MAX_CLASSES = 100


@dataclass(frozen=True)
class Scaler:
    """Standardisation ``(X - mean) / scale``, computed in float64, given as float32.

    A column that is constant (up to rounding) has scale 1.
    """

    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, X: Array, same_unit: bool = False) -> Scaler:
        """Measure columns of X (N, n); with `same_unit` all share the scale of the whole."""
        X = X.reshape(len(X), -1).astype(np.float64)
        mean = X.mean(axis=0)
        variance = np.square(X - mean).mean(axis=0)
        if same_unit:
            variance = np.full_like(mean, variance.mean())
        scale = np.sqrt(variance)
        constant = scale <= 1e-14 * np.abs(mean)  # rounding of the mean
        return cls(mean, np.where(constant, 1.0, scale))

    def apply(self, X: Array) -> Float32:
        """Standardise; the shape of X is kept."""
        flat = X.reshape(len(X), -1)
        scaled = np.empty(flat.shape, np.float32)
        for start in range(0, len(flat), 4096):  # float64 for a block at a time
            block = slice(start, start + 4096)
            scaled[block] = (flat[block] - self.mean) / self.scale
        return scaled.reshape(X.shape)

    def undo(self, X: Array) -> npt.NDArray[np.float64]:
        """Return standardised values to the original unit, in float64."""
        flat = X.reshape(len(X), -1) * self.scale + self.mean
        return cast("npt.NDArray[np.float64]", flat.reshape(X.shape))


@dataclass(frozen=True)
class Split:
    """Standardised training and test rows, ready for `Trainer.fit`.

    ``X_*`` are float32 (rows, n). ``y_*`` are int64 class numbers (rows,), or for regression
    float32 (rows, k) in units of `y_scaler`. The scalers know the training rows alone.
    """

    X_train: Float32
    y_train: Array
    X_test: Float32
    y_test: Array
    rows_train: Rows
    rows_test: Rows
    X_scaler: Scaler
    y_scaler: Scaler | None


@dataclass(frozen=True)
class Dataset:
    """A data set in memory.

    Attributes
    ----------
    spec : str
        The name, file or folder it was loaded from.
    task : "classification" or "regression"
    X : ndarray (N, n), float64 or uint8, as read
    y : ndarray
        Class numbers int64 (N,), or float64 (N, k). Empty second axis: no target.
    labels : list of str
        Class names; empty for regression.
    features : list of str, or None
    target : str, int or None
        Name or position of the target column of a CSV file.
    same_unit : bool
        All columns share one unit (pixels).
    test_start : int or None
        First row of the test part that the source itself defines.
    """

    spec: str
    task: Task
    X: Array
    y: Array | None
    labels: list[str]
    features: list[str] | None
    target: str | int | None
    same_unit: bool
    test_start: int | None

    def __len__(self) -> int:
        return len(self.X)

    @property
    def outputs(self) -> int:
        """Columns a model must put out: one per class, or one per target."""
        if self.task == "classification":
            return len(self.labels)
        return 0 if self.y is None else self.y.shape[1]

    def fingerprint(self) -> str:
        """SHA-256 of rows and targets: the same data give the same text on any machine."""
        digest = hashlib.sha256()
        for array in (self.X, self.y):
            if array is not None:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    def split(self, test_fraction: float = 0.25, seed: int = 0) -> Split:
        """Split into standardised training and test rows; see `split_rows`."""
        train, test = self.split_rows(test_fraction, seed)
        return self.take(train, test)

    def split_rows(self, test_fraction: float = 0.25, seed: int = 0) -> tuple[Rows, Rows]:
        """Return sorted row numbers of the training and the test part.

        A test part that the source defines is used as it is. Otherwise the rows are drawn
        from `seed`, for classification in equal proportion from every class.
        """
        if self.test_start is not None:
            return np.arange(self.test_start), np.arange(self.test_start, len(self))
        labels = self.y if self.task == "classification" else None
        return split_rows(len(self), labels, test_fraction, seed)

    def take(self, train: Rows, test: Rows) -> Split:
        """Standardise by the rows `train`, and return them with the rows `test`."""
        if self.y is None:
            raise ValueError(f"load_data: {self.spec} must have a target, got none")
        X_scaler = Scaler.fit(self.X[train], self.same_unit)
        y_scaler = None if self.task == "classification" else Scaler.fit(self.y[train])
        y = self.y if y_scaler is None else y_scaler.apply(self.y)
        X_train, X_test = X_scaler.apply(self.X[train]), X_scaler.apply(self.X[test])
        return Split(X_train, y[train], X_test, y[test], train, test, X_scaler, y_scaler)


def split_rows(rows: int, labels: Array | None, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Draw row numbers for two parts, sorted; stratified when `labels` are given.

    The draw sorts raw Philox words, so it depends on the seed alone, not on NumPy's version.

    Raises
    ------
    ValueError
        `fraction` is not strictly between 0 and 1, or a part would be empty.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"split: fraction must be between 0 and 1, got {fraction!r}")
    order = np.argsort(np.random.Philox(key=seed).random_raw(rows), kind="stable")
    if labels is None:
        groups = [order]
    else:
        groups = [order[labels[order] == label] for label in np.unique(labels)]
    second = np.sort(np.concatenate([group[: round(fraction * len(group))] for group in groups]))
    first = np.setdiff1d(np.arange(rows), second, assume_unique=True)
    if len(first) == 0 or len(second) == 0:
        raise ValueError(
            f"split: both parts must have rows, got {len(first)} and {len(second)} of {rows}"
            f" rows at fraction {fraction}; change the fraction or add rows"
        )
    return first, second


def load_data(
    spec: str | Path,
    *,
    task: Task | None = None,
    target: str | int | None = None,
    header: bool | None = None,
    schema: Schema | None = None,
    labels: Sequence[str] | None = None,
) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    spec : str or Path
        ``digits``, ``breast_cancer``, ``wine``, ``iris`` or ``diabetes`` (from scikit-learn), a
        ``.csv`` or ``.npz`` file, or a folder of MNIST-style IDX files.
    task : "classification" or "regression", optional
        Default: classification if the target is strings, or few whole numbers.
    target : str or int, optional
        Name or position of the target column of a CSV file; default: the last.
    header : bool, optional
        Whether the first line of a CSV file holds names; default: found out.
    schema, labels : optional
        What a trained model expects; the target may then be absent (`y` is None).

    Raises
    ------
    ValueError
        Unknown name, unreadable, damaged or unsuitable data; CSV errors name the line.
    FileNotFoundError
        There is no such file or folder.
    MissingExtraError
        scikit-learn is needed and not installed.
    """
    if task not in (None, "classification", "regression"):
        raise ValueError(f"load_data: task must be 'classification' or 'regression', got {task!r}")
    table = check_table(_read(spec, target, header, schema), str(spec))
    if table.values is None and schema is None:
        raise ValueError(f"load_data: {spec} must have a target (y), got none")
    if schema is not None and table.X.shape[1] != schema.columns:
        raise ValueError(
            f"load_data: {spec} must have the model's {schema.columns} feature columns,"
            f" got {table.X.shape[1]}"
        )
    chosen: Task = task or _detect(table)
    y, names = _encode(table, chosen, labels, str(spec))
    return Dataset(
        str(spec), chosen, table.X, y, names, table.features, table.target,
        table.same_unit, table.test_start,
    )  # fmt: skip


def _read(
    spec: str | Path, target: str | int | None, header: bool | None, schema: Schema | None
) -> Table:
    path = Path(spec)
    is_csv = path.suffix.lower() == ".csv"
    if (target is not None or header is not None) and not is_csv:
        raise ValueError(f"load_data: target and header are for .csv files, got {str(spec)!r}")
    if str(spec) in BUNDLED:
        return read_bundled(str(spec))
    if not path.exists():
        raise FileNotFoundError(
            f"load_data: data must be one of {', '.join(BUNDLED)}, a .csv or .npz file or a"
            f" folder of IDX files, got {str(spec)!r}, which does not exist"
        )
    if path.is_dir():
        return read_idx_folder(path)
    if is_csv:
        return read_csv(path, target, header, schema)
    if path.suffix.lower() == ".npz":
        return read_npz(path)
    raise ValueError(f"load_data: a data file must end in .csv or .npz, got {str(spec)!r}")


def _detect(table: Table) -> Task:
    """Strings are classes; so are whole numbers, if few values cover many rows."""
    values = table.values
    if values is None or values.dtype.kind == "U" or table.labels is not None:
        return "classification"
    if values.ndim > 1 or not np.array_equal(values, np.round(values)):
        return "regression"
    few = max(2, min(_MAX_CLASSES, len(values) // 4))
    return "classification" if len(np.unique(values)) <= few else "regression"


def _encode(
    table: Table, task: Task, labels: Sequence[str] | None, source: str
) -> tuple[Array | None, list[str]]:
    if table.values is None:
        return None, list(labels or [])
    if task == "classification":
        return _encode_classes(table, labels, source)
    if table.values.dtype.kind == "U":
        raise ValueError(
            f"load_data: the target of {source} must be numbers for regression,"
            f" got {str(table.values.flat[0])!r}"
        )
    return table.values.reshape(len(table.values), -1).astype(np.float64), []


def _encode_classes(
    table: Table, labels: Sequence[str] | None, source: str
) -> tuple[Array, list[str]]:
    values: Any = table.values
    if values.ndim != 1:
        raise ValueError(
            f"load_data: the target of {source} must be one column for classification,"
            f" got shape {values.shape}"
        )
    distinct, codes = np.unique(values, return_inverse=True)
    names = [_label(value, table.labels) for value in distinct]
    if labels is None:
        known = table.labels or names
        if len(known) < 2:
            raise ValueError(f"load_data: {source} must have at least two classes, got {known}")
    else:
        known = list(labels)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"load_data: the target of {source} must be one of the model's classes"
            f" {list(known)}, got {unknown[0]!r}"
        )
    place = np.array([known.index(name) for name in names], dtype=np.int64)
    return place[codes], list(known)


def _label(value: Any, labels: list[str] | None) -> str:
    if labels is not None:
        return labels[int(value)]
    if isinstance(value, np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)
