"""Everything `Trainer.fit` is given is looked at here, before anything is changed."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastdl import nn
from fastdl.train.metrics import Array


def integer(op: str, name: str, value: Any, low: int) -> int:
    """Return a whole number not below `low`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool | np.bool_):
        raise TypeError(f"{op}: {name} must be an int, got {type(value).__name__}")
    if number < low:
        raise ValueError(f"{op}: {name} must be >= {low}, got {number}")
    return number


def number(op: str, name: str, value: Any, low: float = 0.0) -> float:
    """Return a finite number not below `low`."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{op}: {name} must be a number, got {type(value).__name__}")
    if not low <= value < float("inf"):
        raise ValueError(f"{op}: {name} must be finite and >= {low:g}, got {value}")
    return float(value)


def model_dtype(model: nn.Module) -> np.dtype[Any]:
    """Return the dtype of the model's parameters; float32 for a model without any."""
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if len(dtypes) > 1:
        raise TypeError(
            f"Trainer: model must have parameters of one dtype, got {sorted(map(str, dtypes))}"
        )
    return dtypes.pop() if dtypes else np.dtype(np.float32)


def inputs(op: str, name: str, X: Any, dtype: np.dtype[Any], finite: bool) -> Array:
    """Return X as an array of the model's dtype; arrays of another dtype are refused."""
    array = X if isinstance(X, np.ndarray) else np.asarray(X)
    if not isinstance(X, np.ndarray) and array.dtype.kind in "fiu":
        array = array.astype(dtype)  # lists have no dtype of their own
    if array.dtype != dtype:
        raise TypeError(
            f"{op}: {name} must be {dtype} (as the model's parameters), got {array.dtype};"
            f' use {name}.astype("{dtype}")'
        )
    if array.ndim < 2 or array.shape[0] == 0:
        raise ValueError(
            f"{op}: {name} must have shape (N, n) with N >= 1, got {array.shape}"
            + ("; use X.reshape(-1, 1)" if array.ndim == 1 else "")
        )
    return _finite(op, name, array) if finite else array


def targets(op: str, name: str, y: Any, rows: int, task: str, dtype: np.dtype[Any]) -> Array:
    """Return y as an array: integer labels, or values of the model's dtype."""
    array = y if isinstance(y, np.ndarray) else np.asarray(y)
    if not isinstance(y, np.ndarray) and task == "regression" and array.dtype.kind in "fiu":
        array = array.astype(dtype)
    if array.ndim == 0 or len(array) != rows:
        raise ValueError(
            f"{op}: X and {name} must be equally long, got {rows} rows of X and"
            f" {name} of shape {array.shape}"
        )
    if task == "regression" and array.dtype != dtype:
        raise TypeError(
            f"{op}: {name} must be {dtype} (as the model's parameters), got {array.dtype};"
            f' use {name}.astype("{dtype}")'
        )
    labels = (np.dtype(np.int32), np.dtype(np.int64))
    if task == "classification" and array.dtype not in (*labels, dtype):
        raise TypeError(
            f"{op}: {name} must be labels of int32 or int64 (or probabilities of {dtype}),"
            f' got {array.dtype}; use {name}.astype("int64")'
        )
    return _finite(op, name, array)


def labels_in_range(op: str, name: str, t: Array, classes: int, ignore_index: int) -> None:
    """Raise ValueError for a label outside 0..classes-1 that is not `ignore_index`."""
    wrong = np.flatnonzero(((t < 0) | (t >= classes)) & (t != ignore_index))
    if wrong.size:
        raise ValueError(
            f"{op}: {name} must be labels in 0..{classes - 1} (the model has {classes} outputs),"
            f" got {t.flat[wrong[0]]} at row {wrong[0] // max(1, t[0].size)}"
        )


def _finite(op: str, name: str, array: Array) -> Array:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise ValueError(
            f"{op}: {name} must be finite, got NaN or Inf in row {row}; fill in or drop such"
            " rows (check_finite=False lets them through X)"
        )
    return array


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode for a block, then every module back where it was."""
    modes = [(module, module.training) for module in model.modules()]
    if not any(training for _, training in modes):
        yield
        return
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:  # parents come first, so each ends where it was
            module.train(training)
