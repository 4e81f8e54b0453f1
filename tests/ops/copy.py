"""Y = X, whatever the strides of X."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from opcase import EDGE_SHAPES, Array, Case, Error, Kernel, Rng, integers


def copy(X: Array) -> dict[str, Array]:
    return {"Y": X.copy()}


def rounded(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    return rng.standard_normal(shape).astype(ml_dtypes.bfloat16)


KERNELS = [
    Kernel(
        copy,
        cases=[
            *(Case(shape=s) for s in EDGE_SHAPES),
            Case(shape=(5, 7, 3), X=integers(-(2**62), 2**62, np.int64)),
            Case(shape=(5, 7, 3), X=integers(-(2**30), 2**30, np.int32)),
            Case(shape=(5, 7, 3), X=integers(0, 255, np.uint8)),
            Case(shape=(5, 7, 3), X=rounded),
        ],
        exact=True,
        specials="X",
        errors=[
            Error(
                Case(shape=(2, 3)),
                {"Y": (3, 2)},
                "copy: Y must be float32(2, 3), the shape of X, got float32(3, 2)",
            ),
        ],
    ),
]
