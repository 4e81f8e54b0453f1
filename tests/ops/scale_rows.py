"""Y_ij = X_ij s_i, or s for all of them when there is one."""

from __future__ import annotations

from opcase import EDGE_SIZES, Array, Case, Error, Kernel


def scale_rows(X: Array, s: Array) -> dict[str, Array]:
    return {"Y": X * s[:, None]}


SIZES = [(1, 1), (3, 0), (300, 701), *((i % 5 + 2, C) for i, C in enumerate(EDGE_SIZES))]

KERNELS = [
    Kernel(
        scale_rows,
        cases=[
            *(Case(B=B, C=C, S=B) for B, C in SIZES if B > 1),
            *(Case(B=B, C=C, S=1) for B, C in SIZES),
            Case(B=0, C=5, S=0),
            Case(B=0, C=5, S=1),
        ],
        sizes={"S": (1, "B")},
        exact=True,
        rows="B",
        row_cases=lambda case: case.sizes["S"] == 1,
        inplace=("Y=X",),
        specials="X s",
        special_cases=[Case(B=5, C=19, S=5), Case(B=5, C=19, S=1)],
        errors=[
            Error(Case(B=3, C=2, S=3), {"s": (2,)}, "^scale_rows: s must .*1.*3.*, got .*2"),
        ],
    ),
]
