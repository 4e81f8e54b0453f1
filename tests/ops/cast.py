"""Y = X in another float dtype, rounded to nearest even; to bfloat16 by way of float32.

The harness hands a bfloat16 Y over as float32, and rounds that itself.
"""

from __future__ import annotations

import numpy as np
from opcase import Array, Case, Error, Kernel, Maker, Rng

SHAPES: list[tuple[int, ...]] = [(), (0,), (3,), (2, 3, 5), (17, 1001)]


def cast(X: Array, Y: Array) -> dict[str, Array]:
    return {"Y": X.astype(Y.dtype)}


def numbers(dtype: str) -> Maker:
    """All exponents, ties between two numbers of bfloat16, NaN and infinities."""

    def make(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
        bits = rng.integers(0, 2**32, shape, np.uint32)
        ties = bits & np.uint32(0xFFFF0000) | np.uint32(0x8000)
        X = np.where(rng.integers(0, 2, shape) == 0, bits, ties).astype(np.uint32).view(np.float32)
        X = np.where(np.isnan(X), np.float32(np.nan), X)  # others may signal
        with np.errstate(all="ignore"):
            return X.astype(dtype)

    make.__name__ = dtype
    return make


KERNELS = [
    Kernel(
        cast,
        cases=[
            Case(shape=s, X=numbers(d)) for s in SHAPES for d in ("bfloat16", "float32", "float64")
        ],
        exact=True,
        specials="X",
        special_cases=[Case(shape=(7, 19), X=numbers("float32"))],
        errors=[
            Error(
                Case(shape=(2, 3), X=numbers("float32")),
                {"Y": (6,)},
                "cast: Y must be float32(2, 3), the shape of X, got float32(6,)",
            ),
        ],
    ),
]
