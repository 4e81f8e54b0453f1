"""Y += X."""

from __future__ import annotations

from opcase import EDGE_SHAPES, Array, Case, Error, Kernel


def accumulate(X: Array, Y: Array) -> dict[str, Array]:
    return {"Y": Y + X}


KERNELS = [
    Kernel(
        accumulate,
        cases=[Case(shape=s) for s in EDGE_SHAPES],
        exact=True,
        specials="X Y",
        errors=[
            Error(
                Case(shape=(2, 3)),
                {"Y": (6,)},
                "accumulate: Y must be float32(2, 3), the shape of X, got float32(6,)",
            ),
        ],
    ),
]
