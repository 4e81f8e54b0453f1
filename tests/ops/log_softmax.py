"""Y = X - max - log sum exp(X - max);  dX = dY - exp(Y) sum dY, along rows."""

from __future__ import annotations

import numpy as np
from opcase import Array, Case, Error, Gradient, Kernel, Public, Rng


def log_softmax_forward(X: Array) -> dict[str, Array]:
    Z = X - X.max(axis=1, keepdims=True, initial=-np.inf)
    return {"Y": Z - np.log(np.exp(Z).sum(axis=1, keepdims=True))}


def log_softmax_backward(dY: Array, Y: Array) -> dict[str, Array]:
    return {"dX": dY - np.exp(Y) * dY.sum(axis=1, keepdims=True)}


def forward_scale(X: Array) -> dict[str, Array]:
    """Rounding X - max costs eps |X - max|."""
    Z = np.abs(X - X.max(axis=1, keepdims=True, initial=-np.inf))
    return {"Y": Z + np.log(max(X.shape[1], 1)) + 1}


def backward_scale(dY: Array, Y: Array) -> dict[str, Array]:
    return {"dX": np.abs(dY) + np.exp(Y) * np.abs(dY).sum(axis=1, keepdims=True)}


def log_probabilities(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    X = 3 * rng.standard_normal(shape)
    return log_softmax_forward(X)["Y"] if X.size else X


def far_apart(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    """Logits that overflow exp on their own."""
    return 1e4 * rng.standard_normal(shape)


def masked(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    X = rng.standard_normal(shape)
    X[:, ::2] = -np.inf
    return X


CLASSES = (1, 2, 3, 7, 8, 9, 10, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127)
CASES = [
    *(Case(B=5 + i, C=C) for i, C in enumerate(CLASSES)),
    Case(B=1, C=1001), Case(B=3, C=70_000), Case(B=700, C=10), Case(B=300, C=70),
    Case(B=0, C=4), Case(B=3, C=0),
]  # fmt: skip

KERNELS = [
    Kernel(
        log_softmax_forward,
        cases=[
            *CASES,
            *(Case(B=9, C=C, X=X) for C in (6, 60) for X in (far_apart, masked)),
        ],
        scale=forward_scale,
        rows="B",
        inplace=("Y=X",),
        specials="X",
        special_cases=[Case(B=9, C=7), Case(B=9, C=40), Case(B=9, C=1)],
        gradient=Gradient([Case(B=3, C=5)], {"X": "dX"}, "Y", log_softmax_backward),
        public=Public(
            "log_softmax",
            Case(B=6, C=5),
            lambda fd, a, **options: fd.ops.log_softmax(a["X"], **options),
        ),
        errors=[
            Error(
                Case(B=2, C=3),
                {"Y": (2, 4)},
                "^log_softmax_forward: Y must be .*C = 3 .from X.*got float32.2, 4",
            ),
        ],
    ),
    Kernel(
        log_softmax_backward,
        cases=CASES,
        values={"Y": log_probabilities},
        scale=backward_scale,
        rows="B",
        inplace=("dX=dY", "dX=Y"),
        specials="dY Y",
        special_cases=[Case(B=9, C=7), Case(B=9, C=40)],
        errors=[
            Error(
                Case(B=2, C=3),
                {"Y": (3, 3)},
                "^log_softmax_backward: Y must be .*B = 2 .from dY.*got float32.3, 3",
            ),
        ],
    ),
]
