"""Y = max(X, 0);  dX = 0 where Y <= 0, else dY (so NaN stays visible)."""

from __future__ import annotations

import numpy as np
from opcase import EDGE_SHAPES, Array, Case, Error, Gradient, Kernel, Public


def relu_forward(X: Array) -> dict[str, Array]:
    return {"Y": np.where(np.isnan(X), X, np.where(X > 0, X, 0)).astype(X.dtype)}


def relu_backward(dY: Array, Y: Array) -> dict[str, Array]:
    return {"dX": np.where(Y <= 0, 0, dY).astype(dY.dtype)}


def zeros_among(rng: np.random.Generator, shape: tuple[int, ...], case: Case) -> Array:
    """As ReLU leaves them: half the elements are exactly zero."""
    return np.maximum(rng.standard_normal(shape), 0)


CASES = [Case(shape=s) for s in EDGE_SHAPES]

KERNELS = [
    Kernel(
        relu_forward,
        cases=CASES,
        errors=[
            Error(
                Case(shape=(2, 3)),
                {"Y": (3, 2)},
                "relu_forward: Y must be float32(2, 3), the shape of X, got float32(3, 2)",
            ),
        ],
        exact=True,
        inplace=("Y=X",),
        specials="X",
        gradient=Gradient([Case(shape=(4, 5))], {"X": "dX"}, "Y", relu_backward),
        public=Public(
            "relu", Case(shape=(6, 5)), lambda fd, a, **options: fd.ops.relu(a["X"], **options)
        ),
    ),
    Kernel(
        relu_backward,
        cases=CASES,
        values={"Y": zeros_among},
        errors=[
            Error(
                Case(shape=(2, 3)),
                {"Y": (2, 4)},
                "relu_backward: Y must be float32(2, 3), the shape of dY, got float32(2, 4)",
            ),
        ],
        exact=True,
        inplace=("dX=dY", "dX=Y"),
        specials="dY Y",
    ),
]
