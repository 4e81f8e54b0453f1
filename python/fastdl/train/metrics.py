"""Accuracy, R2 and mean squared error of outputs (N, ...) against targets, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Metric = Callable[[Array, Array], float]


def accuracy(outputs: Array, t: Array, ignore_index: int = -100) -> float:
    """Share of rows whose largest output (axis 1) is at the label; NaN without rows."""
    hits = (outputs.argmax(axis=1) == t)[t != ignore_index]
    return float(hits.mean()) if hits.size else float("nan")


def mse(outputs: Array, T: Array) -> float:
    """Mean squared error."""
    return float(np.square(outputs.astype(np.float64) - T).mean())


def r2(outputs: Array, T: Array) -> float:
    """Coefficient of determination, the mean over columns, as scikit-learn's `r2_score`.

    A constant target gives 1 if it is met exactly, else 0.
    """
    flat_t = T.reshape(len(T), -1).astype(np.float64)
    residual = np.square(outputs.reshape(len(T), -1) - flat_t).sum(axis=0)
    total = np.square(flat_t - flat_t.mean(axis=0)).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.where(total > 0, 1.0 - residual / total, np.where(residual > 0, 0.0, 1.0))
    return float(scores.mean())


def larger_is_better(name: str) -> bool:
    """Whether a quantity is to be maximised; losses and errors are not."""
    return name.removeprefix("val_") in ("accuracy", "r2")
