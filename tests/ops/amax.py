"""Y_nm = max_r X_nrm;  dX_nrm = dY_nm / c_nm where X_nrm = Y_nm, else 0; c counts these r."""

from __future__ import annotations

import numpy as np
from opcase import Array, Case, Error, Gradient, Kernel, Public, Rng


def amax_forward(X: Array) -> dict[str, Array]:
    if X.shape[1] == 0:
        return {"Y": np.zeros((X.shape[0], X.shape[2]), X.dtype)}
    return {"Y": X.max(axis=1)}


def amax_backward(dY: Array, X: Array, Y: Array) -> dict[str, Array]:
    here = Y[:, None] == X
    count = here.sum(axis=1).astype(X.dtype)
    return {"dX": np.where(here, np.divide(dY, count)[:, None], 0).astype(X.dtype)}


def with_ties(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    return rng.integers(-3, 4, shape).astype(float)


SIZES = [
    (1, 1, 1), (64, 2, 1), (7, 15, 1), (7, 16, 1), (7, 17, 1), (5, 33, 1), (3, 1001, 1),
    (1, 9, 2), (1, 9, 17), (4, 5, 33), (1, 300, 701), (0, 3, 2), (3, 4, 0), (0, 0, 4), (3, 0, 0),
]  # fmt: skip
CASES = [Case(N=N, R=R, M=M) for N, R, M in SIZES]
TIES = [Case(N=9, R=7, M=1, X=with_ties), Case(N=3, R=8, M=19, X=with_ties)]
SPECIAL = [Case(N=5, R=21, M=1), Case(N=3, R=5, M=9)]


def has_elements(case: Case) -> bool:
    return case.sizes["R"] > 0 or case.sizes["N"] * case.sizes["M"] == 0


KERNELS = [
    Kernel(
        amax_forward,
        cases=[*CASES, *TIES],
        valid=has_elements,
        exact=True,
        specials="X",
        special_cases=SPECIAL,
        gradient=Gradient([Case(N=2, R=3, M=4)], {"X": "dX"}, "Y", amax_backward),
        public=Public(
            "amax",
            Case(N=3, R=4, M=5),
            lambda fd, a, **options: fd.ops.amax(a["X"], 1, **options),
        ),
        errors=[
            Error(Case(N=2, R=3, M=4), {"Y": (2, 3)}, "^amax_forward: Y must .*M = 4 .from X.*got"),
            Error(
                Case(N=2, R=3, M=4),
                {"X": (2, 0, 4)},
                "amax_forward: X must have an element to take the maximum of, got R = 0",
            ),
        ],
    ),
    Kernel(
        amax_backward,
        cases=[*CASES, *TIES],
        values={"X": with_ties, "Y": with_ties},
        exact=True,
        specials="dY X Y",
        special_cases=SPECIAL,
        errors=[
            Error(
                Case(N=2, R=3, M=4), {"Y": (2, 3)}, "^amax_backward: Y must .*M = 4 .from dY.*got"
            ),
        ],
    ),
]
