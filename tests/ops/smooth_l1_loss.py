"""d = X - T;  loss = d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, reduced by mean or sum;
dX = d / beta or sign(d), divided by N for the mean.
"""

from __future__ import annotations

import numpy as np
from opcase import EDGE_SHAPES, Array, Case, Error, Gradient, Kernel, Public, Rng


def smooth_l1_loss_forward(
    X: Array, T: Array, reduction: str = "mean", beta: float = 1.0
) -> dict[str, Array]:
    N = X.size if reduction == "mean" else 1
    d, b = X - T, X.dtype.type(beta)
    inside, width = np.abs(d) < b, b if b > 0 else 1
    loss = np.where(inside, d * d / (2 * width), np.abs(d) - b / 2)
    slope = np.where(inside, d / width, np.sign(d))
    return {"loss": loss, "total": np.divide(loss.sum(), N), "dX": slope / max(N, 1)}


def scale(X: Array, T: Array, reduction: str, beta: float) -> dict[str, Array]:
    """|d| - beta / 2 cancels by a factor of two at most."""
    result = smooth_l1_loss_forward(X, T, reduction, beta)
    return {name: 2 * np.abs(value) for name, value in result.items()}


def some_equal(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    return rng.integers(-2, 3, shape).astype(float)


KERNELS = [
    Kernel(
        smooth_l1_loss_forward,
        cases=[
            *(Case(shape=s) for s in EDGE_SHAPES),
            *(Case(shape=s, reduction="sum") for s in [(1,), (7, 3), (0, 3), (300, 701)]),
            *(Case(shape=s, reduction="none") for s in [(1,), (7, 3), (0, 3), (300, 701)]),
            *(Case(shape=(9, 7), beta=b) for b in (0.0, 0.3, 2.0, 1e-30)),
            *(Case(shape=(9, 7), beta=b, X=some_equal, T=some_equal) for b in (0.0, 1.0)),
            Case(shape=(17, 5), without="dX loss"),
            Case(shape=(17, 5), without="total"),
            Case(shape=(17, 5), without="total loss", reduction="sum"),
        ],
        attributes={"reduction": ("mean", "sum", "none"), "beta": (0.0, 0.5, 1.0)},
        scale=scale,
        specials="X T",
        special_cases=[Case(shape=(7, 19)), Case(shape=(7, 19), beta=0.0)],
        gradient=Gradient(
            [
                Case(shape=(3, 4)),
                Case(shape=(3, 4), reduction="sum", beta=0.2),
                Case(shape=(3, 4), beta=0.0),
            ],
            {"X": "dX"},
            "total",
        ),
        public=Public(
            "smooth_l1_loss",
            Case(shape=(6, 5)),
            lambda fd, a, **options: fd.ops.smooth_l1_loss(a["X"], a["T"], **options),
        ),
        errors=[
            Error(
                Case(shape=(2, 3)),
                {"T": (2,)},
                "smooth_l1_loss_forward: T must be float32(2, 3), the shape of X, got float32(2,)",
            ),
            Error(
                Case(shape=(2, 3)),
                {"reduction": "max"},
                "^smooth_l1_loss_forward: reduction must be one of .*'sum'.*, got 'max'",
            ),
            Error(
                Case(shape=(2, 3)),
                {"beta": -1.0},
                "smooth_l1_loss_forward: beta must be >= 0, got -1",
            ),
            Error(Case(shape=(2, 3)), {"beta": float("nan")}, "^.*beta must be >= 0, got .*nan"),
        ],
    ),
]
