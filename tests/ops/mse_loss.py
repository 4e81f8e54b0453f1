"""loss = (X - T)^2, reduced by mean or sum;  dX = 2 (X - T) / N (mean) or 2 (X - T)."""

from __future__ import annotations

import numpy as np
from opcase import EDGE_SHAPES, Array, Case, Error, Gradient, Kernel, Public


def mse_loss_forward(X: Array, T: Array, reduction: str = "mean") -> dict[str, Array]:
    N = X.size if reduction == "mean" else 1
    loss = (X - T) ** 2
    return {"loss": loss, "total": np.divide(loss.sum(), N), "dX": 2 * (X - T) / max(N, 1)}


def scale(X: Array, T: Array, reduction: str = "mean") -> dict[str, Array]:
    """(X - T)^2 has the relative error of a square, so nothing cancels after the difference."""
    result = mse_loss_forward(X, T, reduction)
    return {name: np.abs(value) for name, value in result.items()}


KERNELS = [
    Kernel(
        mse_loss_forward,
        cases=[
            *(Case(shape=s) for s in EDGE_SHAPES),
            *(Case(shape=s, reduction="sum") for s in [(1,), (7, 3), (0, 3), (300, 701)]),
            *(Case(shape=s, reduction="none") for s in [(1,), (7, 3), (0, 3), (300, 701)]),
            Case(shape=(17, 5), without="dX loss"),
            Case(shape=(17, 5), without="total"),
            Case(shape=(17, 5), without="total loss", reduction="sum"),
        ],
        attributes={"reduction": ("mean", "sum", "none")},
        scale=scale,
        specials="X T",
        gradient=Gradient([Case(shape=(3, 4)), Case(shape=(3, 4), reduction="sum")],
                          {"X": "dX"}, "total"),
        public=Public(
            "mse_loss",
            Case(shape=(6, 5)),
            lambda fd, a, **options: fd.ops.mse_loss(a["X"], a["T"], **options),
        ),
        errors=[
            Error(
                Case(shape=(2, 3)),
                {"T": (2,)},
                "mse_loss_forward: T must be float32(2, 3), the shape of X, got float32(2,)",
            ),
            Error(
                Case(shape=(2, 3)),
                {"reduction": "max"},
                "^mse_loss_forward: reduction must be one of .*'sum'.*, got 'max'",
            ),
        ],
    ),
]  # fmt: skip
