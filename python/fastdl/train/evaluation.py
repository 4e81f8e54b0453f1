"""Outputs, loss and metrics of a model in evaluation mode, and checks of data against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastdl import nn, ops
from fastdl.tape import no_grad
from fastdl.tensor import Tensor
from fastdl.train import checks
from fastdl.train.metrics import Array, Metric, accuracy, mse, r2

EVAL_ROWS = 1024


def task_of(loss: Callable[..., Any]) -> str:
    """Return the kind of targets a loss wants: classification, regression or other."""
    if isinstance(loss, nn.CrossEntropyLoss) or loss is ops.cross_entropy:
        return "classification"
    if isinstance(loss, nn.MSELoss) or loss is ops.mse_loss:
        return "regression"
    return "other"


class Judge:
    """Measures a model; the model must be in evaluation mode when a method is called."""

    def __init__(
        self, model: nn.Module, loss: Callable[..., Any], metrics: Mapping[str, Metric] | None
    ) -> None:
        self.model, self.loss = model, loss
        self.task = task_of(loss)
        self.ignore_index = int(getattr(loss, "ignore_index", -100))
        self.metrics = self._default_metrics() if metrics is None else dict(metrics)

    @property
    def names(self) -> list[str]:
        """Names of what `measure` returns."""
        return ["loss", *self.metrics]

    def _default_metrics(self) -> dict[str, Metric]:
        if self.task == "classification":
            return {"accuracy": self._accuracy}
        return {"r2": r2, "mse": mse} if self.task == "regression" else {}

    def _accuracy(self, outputs: Array, y: Array) -> float:
        t = y.argmax(axis=1) if y.dtype.kind == "f" else y
        return accuracy(outputs, t, self.ignore_index)

    def outputs(self, X: Array, rows: int = EVAL_ROWS) -> Array:
        """Return the outputs for all rows of X, computed in blocks."""
        with no_grad():
            blocks = [
                np.array(self.model(Tensor(X[start : start + rows])))
                for start in range(0, len(X), rows)
            ]
        return np.concatenate(blocks)

    def measure(self, X: Array, y: Array) -> dict[str, float]:
        """Return the loss and every metric over all rows at once."""
        outputs = self.outputs(X)
        with no_grad():
            loss = float(self.loss(Tensor(outputs), Tensor(y)))
        return {"loss": loss} | {name: f(outputs, y) for name, f in self.metrics.items()}

    def pair(self, op: str, name: str, X: Any, y: Any, finite: bool) -> tuple[Array, Array]:
        """Return X and y as contiguous arrays that fit the model and the loss, or raise."""
        dtype = checks.model_dtype(self.model)
        x_name = name.replace("y", "X")
        X = np.ascontiguousarray(checks.inputs(op, x_name, X, dtype, finite))
        y = np.ascontiguousarray(checks.targets(op, name, y, len(X), self.task, dtype))
        outputs = self.outputs(X[:2])
        if self.task == "regression" and y.ndim == 1 and outputs.shape[1:] == (1,):
            y = y.reshape(-1, 1)
        self._check_targets(op, name, outputs, y)
        with no_grad():
            loss = self.loss(Tensor(outputs), Tensor(y[:2]))
        if np.ndim(loss) != 0:
            raise ValueError(
                f'{op}: loss must return a scalar, got shape {np.shape(loss)}; use reduction="mean"'
            )
        return X, y

    def _check_targets(self, op: str, name: str, outputs: Array, y: Array) -> None:
        labels = self.task == "classification" and y.dtype.kind == "i"
        if labels and outputs.ndim >= 2:
            wanted = (len(y), *outputs.shape[2:])
        elif self.task != "other":
            wanted = (len(y), *outputs.shape[1:])
        else:
            return
        if y.shape != wanted:
            raise ValueError(
                f"{op}: {name} must be {wanted} (the model's outputs are (N,"
                f" {', '.join(map(str, outputs.shape[1:]))})), got {y.shape}"
            )
        if labels:
            checks.labels_in_range(op, name, y, outputs.shape[1], self.ignore_index)
