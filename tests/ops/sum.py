"""Y_nm = sum_r X_nrm / count;  dX_nrm = dY_nm / count."""

from __future__ import annotations

import numpy as np
from opcase import Array, Case, Error, Gradient, Kernel, Public


def sum_forward(X: Array, count: int = 1) -> dict[str, Array]:
    return {"Y": np.divide(X.sum(axis=1), X.dtype.type(count))}


def sum_backward(dY: Array, X: Array, count: int) -> dict[str, Array]:
    return {"dX": np.broadcast_to(dY[:, None] / count, X.shape)}


def scale(X: Array, count: int) -> dict[str, Array]:
    return sum_forward(np.abs(X), count)


SIZES = [
    # The whole, rows, columns; M that divide 16 and others; around a chain of 16, a panel of 512
    # and a piece of 16384 elements.
    *((1, R, 1) for R in (0, 1, 2, 15, 16, 17, 255, 256, 257, 16383, 16384, 16385, 50_001)),
    *((B, C, 1) for B, C in [(0, 3), (3, 0), (64, 2), (5, 10), (700, 33), (3, 17_000)]),
    *((1, 37, M) for M in (0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 511, 512, 513, 1100)),
    *((1, R, 5) for R in (0, 1, 15, 16, 17, 33, 10_001)),
    (1, 40_000, 2), (2, 20_000, 3), (3, 9, 4), (130, 11, 24), (2, 70, 600), (1, 3000, 520),
]  # fmt: skip

KERNELS = [
    Kernel(
        sum_forward,
        cases=[
            *(Case(N=N, R=R, M=M) for N, R, M in SIZES),
            Case(N=1, R=1001, M=1, count=1001),
            Case(N=7, R=30, M=3, count=210),
            Case(N=1, R=0, M=1, count=0),
        ],
        attributes={"count": (1, 2, 7)},
        scale=scale,
        specials="X",
        special_cases=[
            Case(N=1, R=50, M=1),
            Case(N=2, R=40, M=9),
            Case(N=1, R=40, M=4),
            Case(N=1, R=40_000, M=1),
        ],
        gradient=Gradient([Case(N=2, R=3, M=4, count=6)], {"X": "dX"}, "Y", sum_backward),
        public=Public(
            "sum",
            Case(N=3, R=4, M=5),
            lambda fd, a, **options: fd.ops.sum(a["X"], 1, **options),
        ),
        errors=[
            Error(Case(N=2, R=3, M=4), {"Y": (2, 3)}, "^sum_forward: Y must .*M = 4 .from X.*got"),
            Error(Case(N=2, R=3, M=4), {"count": -1}, "sum_forward: count must be >= 0, got -1"),
        ],
    ),
]
