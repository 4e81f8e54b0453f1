"""Y = tanh(X);  dX = dY (1 - Y^2)."""

from __future__ import annotations

import numpy as np
from opcase import EDGE_SHAPES, Array, Case, Error, Gradient, Kernel, Public


def tanh_forward(X: Array) -> dict[str, Array]:
    return {"Y": np.tanh(X)}


def tanh_backward(dY: Array, Y: Array) -> dict[str, Array]:
    return {"dX": dY * (1 - Y * Y)}


def result_of_tanh(rng: np.random.Generator, shape: tuple[int, ...], case: Case) -> Array:
    """From small numbers to those that round to 1."""
    return np.tanh(4 * rng.standard_normal(shape))


def wide(rng: np.random.Generator, shape: tuple[int, ...], case: Case) -> Array:
    """All sizes, from subnormal numbers to large ones."""
    return rng.standard_normal(shape) * 10.0 ** rng.uniform(-40, 3, shape)


CASES = [Case(shape=s) for s in EDGE_SHAPES]

KERNELS = [
    Kernel(
        tanh_forward,
        cases=[*CASES, Case(shape=(50, 41), X=wide)],
        errors=[
            Error(
                Case(shape=(2, 3)),
                {"Y": (3, 2)},
                "tanh_forward: Y must be float32(2, 3), the shape of X, got float32(3, 2)",
            ),
        ],
        inplace=("Y=X",),
        specials="X",
        gradient=Gradient([Case(shape=(4, 5))], {"X": "dX"}, "Y", tanh_backward),
        public=Public(
            "tanh", Case(shape=(6, 5)), lambda fd, a, **options: fd.ops.tanh(a["X"], **options)
        ),
    ),
    Kernel(
        tanh_backward,
        cases=CASES,
        values={"Y": result_of_tanh},
        errors=[
            Error(
                Case(shape=(2, 3)),
                {"Y": (2, 4)},
                "tanh_backward: Y must be float32(2, 3), the shape of dY, got float32(2, 4)",
            ),
        ],
        inplace=("dX=dY", "dX=Y"),
        specials="dY Y",
    ),
]
