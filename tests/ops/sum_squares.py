"""total = sum of X^2, or total += that; in float64 at least.

Source: the squared Euclidean norm, for clipping gradients: Pascanu, Mikolov, Bengio, "On the
difficulty of training recurrent neural networks", ICML 2013, algorithm 1.
"""

from __future__ import annotations

import numpy as np
from opcase import EDGE_SHAPES, Array, Case, Error, Kernel, Rng

PIECE = 16 * 1024  # elements that are summed by themselves


def sum_squares(X: Array, total: Array, accumulate: bool = False) -> dict[str, Array]:
    wide = X.astype(np.promote_types(X.dtype, np.float64))
    return {"total": np.sum(wide**2) + (total if accumulate else 0)}


def tiny(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    """Squares below the range of float32."""
    return 1e-30 * rng.standard_normal(shape)


def huge(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    """Squares beyond the range of float32."""
    return 1e30 * rng.standard_normal(shape)


KERNELS = [
    Kernel(
        sum_squares,
        cases=[
            *(Case(shape=s) for s in EDGE_SHAPES),
            *(Case(shape=(n,), accumulate=True) for n in (0, 1, 33, 1000)),
            *(Case(shape=(n * PIECE + d,)) for n in (1, 2) for d in (-1, 0, 1)),
            Case(shape=(20 * PIECE + 5,), accumulate=True),
            *(Case(shape=(1000,), X=x) for x in (tiny, huge)),
        ],
        attributes={"accumulate": (False, True)},
        specials="X",
        errors=[
            Error(Case(shape=(3,)), {"total": np.zeros(1)}, "^sum_squares: total must be float64"),
        ],
    ),
]
