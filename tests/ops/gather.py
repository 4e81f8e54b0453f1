"""Y_nkm = X_n,t,m with t = index_nkm;  dX_nrm = sum_k dY_nkm [index_nkm = r], k ascending."""

from __future__ import annotations

import numpy as np
from opcase import Array, Case, Error, Gradient, Kernel, Public, Rng


def gather_forward(X: Array, index: Array) -> dict[str, Array]:
    return {"Y": np.take_along_axis(X, index, axis=1)}


def gather_backward(dY: Array, index: Array, dX: Array) -> dict[str, Array]:
    result = np.zeros(dX.shape, dY.dtype)
    n, _, m = np.indices(index.shape)
    np.add.at(result, (n, index, m), dY)
    return {"dX": result}


def central_backward(dY: Array, index: Array, X: Array) -> dict[str, Array]:
    return gather_backward(dY, index, X)


def indices(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    return rng.integers(0, max(case.sizes["R"], 1), shape)


def indices32(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    return indices(rng, shape, case).astype(np.int32)


SIZES = [
    # (rows, columns, picks of each row): the value of one action, some of them, rows of a table.
    (64, 2, 1, 1), (1, 1, 1, 1), (300, 7, 3, 1), (1, 10, 40, 1), (1, 50, 70, 33), (4, 5, 6, 7),
    (0, 3, 2, 1), (3, 4, 0, 2), (3, 0, 0, 2), (3, 4, 2, 0), (1, 20_000, 30_000, 1), (9000, 3, 1, 1),
]  # fmt: skip
CASES = [
    *(Case(N=N, R=R, K=K, M=M) for N, R, K, M in SIZES),
    Case(N=5, R=6, K=7, M=3, index=indices32),
]
BASE = Case(N=2, R=3, K=1, M=1)


def index_errors(kernel: str) -> list[Error]:
    return [
        Error(
            BASE,
            {"index": np.array([0, bad]).reshape(2, 1, 1)},
            f"{kernel}: index must be in [0, 3), the size of X along dim, got {bad} at element 1",
        )
        for bad in (3, -1, 2**40)
    ]


def has_places(case: Case) -> bool:
    s = case.sizes
    return s["R"] > 0 or s["N"] * s["K"] * s["M"] == 0


KERNELS = [
    Kernel(
        gather_forward,
        cases=CASES,
        values={"index": indices},
        valid=has_places,
        exact=True,
        specials="X",
        special_cases=[Case(N=5, R=6, K=6, M=2)],
        gradient=Gradient([Case(N=2, R=3, K=4, M=2)], {"X": "dX"}, "Y", central_backward),
        public=Public(
            "gather",
            Case(N=4, R=5, K=3, M=2),
            lambda fd, a, **options: fd.ops.gather(a["X"], 1, a["index"], **options),
        ),
        errors=[
            *index_errors("gather_forward"),
            Error(BASE, {"index": (2, 1, 1)}, "^gather_forward: index must be int32.*", TypeError),
        ],
    ),
    Kernel(
        gather_backward,
        cases=CASES,
        values={"index": indices},
        valid=has_places,
        exact=True,
        specials="dY",
        special_cases=[Case(N=5, R=6, K=6, M=2)],
        errors=index_errors("gather_backward"),
    ),
]
