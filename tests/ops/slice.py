"""dX_nrm = dY_nkm where r = start + k step, 0 for the other r: the gradient of a slice."""

from __future__ import annotations

import numpy as np
from opcase import Array, Case, Error, Kernel


def slice_backward(dY: Array, dX: Array, start: int = 0, step: int = 1) -> dict[str, Array]:
    result = np.zeros(dX.shape, dY.dtype)
    result[:, start + step * np.arange(dY.shape[1])] = dY
    return {"dX": result}


def fits(case: Case) -> bool:
    K, R = case.sizes["K"], case.sizes["R"]
    start, step = case.attributes.get("start", 0), case.attributes.get("step", 1)
    last = start + (K - 1) * step
    return K == 0 or (0 <= start < R and 0 <= last < R)


BASE = Case(N=2, R=5, K=2, M=3, start=1, step=2)

KERNELS = [
    Kernel(
        slice_backward,
        cases=[
            BASE,
            Case(N=1, R=100, K=30, M=7, start=10),
            Case(N=6, R=4, K=1, M=1, start=3),
            Case(N=6, R=4, K=4, M=1, start=3, step=-1),
            Case(N=6, R=9, K=5, M=33, step=2),
            Case(N=1, R=40_000, K=13_333, M=1, start=1, step=3),
            Case(N=900, R=40, K=20, M=1, start=20),
            Case(N=2, R=5, K=0, M=3, start=5),
            Case(N=0, R=5, K=2, M=3),
            Case(N=2, R=0, K=0, M=3),
            Case(N=2, R=3, K=1, M=0),
        ],
        attributes={"start": (0, 1, 6), "step": (1, 2, -1)},
        sizes={"K": (0, 1, 2, 3), "R": (7, 9, 16, 40)},
        valid=fits,
        exact=True,
        specials="dY",
        special_cases=[BASE],
        errors=[
            Error(
                BASE,
                {"start": 3},
                "slice_backward: start and step must stay in [0, 5), got 2 places from 3 by 2",
            ),
            Error(BASE, {"start": -1}, "^slice_backward: start and step must stay .*from -1 by 2"),
            Error(BASE, {"start": 5}, "^slice_backward: start and step must stay .*from 5 by 2"),
            Error(BASE, {"start": 0, "step": -1}, "^slice_backward: start and step must stay"),
            Error(BASE, {"step": 2**62}, "^slice_backward: start and step must stay"),
            Error(BASE, {"step": 0}, "slice_backward: step must not be 0, got 0"),
        ],
    ),
]
