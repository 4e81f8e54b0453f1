"""Y = act(X W + b).

dZ = dY act'(Z);  dX = (dZ W^T) act_below'(X),  dW = X^T dZ,  db = sum_i dZ_i
"""

from __future__ import annotations

from typing import Any

import numpy as np
from opcase import EDGE_SIZES, Array, Case, Error, Gradient, Kernel, Public


def rounded(x: Array, precision: str) -> Array:
    """As bf16, the upper half of a float32: to nearest even, and subnormal numbers to 0."""
    if precision == "full":
        return x
    single = x.astype(np.float32)
    bits = single.view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    nearest = bits.astype(np.uint32).view(np.float32)
    nearest = np.where(np.abs(single) < np.finfo(np.float32).tiny, 0 * single, nearest)
    return np.where(np.isnan(single), single, nearest).astype(x.dtype)


def affine_forward(
    X: Array,
    W: Array,
    b: Array | None = None,
    activation: str = "none",
    precision: str = "full",
) -> dict[str, Array]:
    XW = rounded(X, precision) @ rounded(W, precision)
    Z = XW if b is None else XW + b
    return {
        "Y": {"relu": lambda: np.maximum(Z, 0), "tanh": lambda: np.tanh(Z)}.get(
            activation, lambda: Z
        )()
    }


def through(activation: str, dY: Array, Y: Array) -> Array:
    """dY act'(Z), with Y = act(Z)."""
    if activation == "relu":
        return np.where(Y <= 0, 0, dY).astype(dY.dtype)
    return dY * (1 - Y * Y) if activation == "tanh" else dY


def affine_backward(
    dY: Array,
    X: Array,
    W: Array,
    Y: Array | None = None,
    dW: Array | None = None,
    db: Array | None = None,
    activation: str = "none",
    accumulate: bool = False,
    input_activation: str = "none",
    precision: str = "full",
) -> dict[str, Array]:
    dZ = through(activation, dY, Y)
    dZ_, X_, W_ = (rounded(a, precision) for a in (dZ, X, W))
    new = {"dX": through(input_activation, dZ_ @ W_.T, X), "dW": X_.T @ dZ_, "db": dZ.sum(axis=0)}
    if accumulate:
        new["dW"] = new["dW"] if dW is None else dW + new["dW"]
        new["db"] = new["db"] if db is None else db + new["db"]
    return new


def forward_scale(X: Array, W: Array, b: Array | None = None, **others: object) -> dict[str, Array]:
    """The size of a sum of independent terms: the root of the sum of their squares."""
    return {"Y": np.sqrt(X**2 @ W**2 + (0 if b is None else b**2))}


def backward_scale(
    dY: Array,
    X: Array,
    W: Array,
    Y: Array | None = None,
    dW: Array | None = None,
    db: Array | None = None,
    activation: str = "none",
    input_activation: str = "none",
    precision: str = "full",
    **others: object,
) -> dict[str, Array]:
    dY = through(activation, dY, Y)
    doubt = _doubt(dY) if (precision, activation) == ("bf16", "tanh") else np.zeros_like(dY)
    added_W, added_b = (0 if a is None else np.nan_to_num(a) ** 2 for a in (dW, db))
    return {
        "dX": np.abs(through(input_activation, np.sqrt(dY**2 @ W.T**2) + doubt @ np.abs(W.T), X)),
        "dW": np.sqrt(X.T**2 @ dY**2 + added_W) + np.abs(X.T) @ doubt,
        "db": np.sqrt((dY**2).sum(axis=0) + added_b),
    }


def _doubt(dZ: Array) -> Array:
    """Where the float32 error of dZ, at most 2 roundings, decides which bf16 it becomes: how far
    those are apart, in units of the bound's 8 eps."""
    delta = 2.0**-22
    apart = rounded(dZ * (1 + delta), "bf16") - rounded(dZ * (1 - delta), "bf16")
    return np.nan_to_num(np.abs(apart)) / (8 * np.finfo(np.float32).eps)


SMALL = [Case(B=B, n=n, m=m) for B, n, m in [(1, 1, 1), (3, 5, 7), (4, 16, 16), (1, 64, 64)]]
EDGES = [Case(B=(7 * i) % 11 + 1, n=k, m=EDGE_SIZES[-i - 1]) for i, k in enumerate(EDGE_SIZES)]
EMPTY = [Case(B=B, n=n, m=m) for B, n, m in [(0, 4, 3), (3, 0, 4), (3, 4, 0), (0, 0, 0), (1, 0, 1)]]
TALL = [Case(B=B, n=8, m=9) for B in (13, 14, 15, 27, 28, 29, 97)]  # around the tile heights
DEEP = [Case(B=6, n=n, m=33) for n in (255, 256, 257, 511, 513, 1025, 1500)]  # several k blocks
WIDE = [Case(B=5, n=12, m=m) for m in (95, 96, 97, 129, 500, 1031)]
THREADED = [Case(B=130, n=140, m=150), Case(B=300, n=64, m=64), Case(B=65, n=601, m=257)]
# Few columns in Y or dW (m), in dX (n): on every ISA some that are few and some that are just not.
FEW = [
    (64, 64, 1), (70, 33, 2), (33, 200, 3), (130, 70, 4), (16, 16, 5), (65, 40, 6), (300, 64, 8),
    (67, 65, 9), (40, 47, 12), (131, 129, 13), (20, 90, 24), (30, 90, 25),
    (64, 4, 64), (129, 2, 65), (40, 1, 33), (37, 8, 70),
]  # fmt: skip
THIN = [Case(B=B, n=n, m=m) for B, n, m in FEW]
# One row of X, or of X^T, over 64 KiB and more: the rows of W, or of dZ, stream by.
STREAMED = [Case(B=1, n=300, m=257), Case(B=1, n=3, m=16500), Case(B=301, n=1, m=70)]
SHAPES = SMALL + EDGES + EMPTY + TALL + DEEP + WIDE + THREADED + THIN + STREAMED

# Around the chains (16), steps (32) and blocks (256) of k, the tiles of 14 and 32 rows and the
# columns of one and two, in each of the three products.
BF16 = [
    Case(B=B, n=n, m=m, precision="bf16")
    for B, n, m in [
        (1, 1, 1), (3, 5, 7), (13, 15, 16), (14, 16, 17), (15, 17, 31), (16, 31, 32), (17, 32, 33),
        (31, 33, 15), (32, 47, 48), (33, 48, 47), (48, 49, 1), (1, 64, 64), (5, 255, 9),
        (6, 256, 33), (7, 513, 65), (64, 288, 96), (2, 1030, 40), (511, 20, 5), (513, 9, 34),
        (1030, 17, 3), (70, 3, 515), (130, 140, 150), (0, 4, 3), (3, 0, 4), (3, 4, 0),
    ]
]  # fmt: skip

FORWARD_CASES = [
    *SHAPES,
    *BF16,
    Case(B=131, n=300, m=141, activation="relu", precision="bf16"),
    Case(B=29, n=65, m=33, activation="tanh", precision="bf16", without="b"),
    Case(B=3, n=5, m=7, without="b"),
    Case(B=3, n=5, m=7, activation="relu"),
    Case(B=29, n=65, m=33, activation="relu", without="b"),
    Case(B=131, n=300, m=141, activation="relu"),
    Case(B=4, n=0, m=5, activation="relu"),
    Case(B=3, n=5, m=7, activation="tanh"),
    Case(B=70, n=300, m=3, activation="tanh"),
    Case(B=70, n=300, m=2, activation="relu", without="b"),
    Case(B=1, n=300, m=257, activation="relu"),
    Case(B=1, n=300, m=257, activation="tanh", without="b"),
    Case(B=131, n=300, m=141, activation="tanh"),
    Case(B=29, n=65, m=64, activation="tanh", without="b"),
    Case(B=4, n=0, m=5, without="b"),
]

BACKWARD_CASES = [
    *SHAPES,
    *BF16,
    Case(B=131, n=300, m=141, activation="relu", precision="bf16", accumulate=True),
    Case(B=29, n=65, m=33, activation="tanh", input_activation="relu", precision="bf16"),
    Case(B=29, n=65, m=33, input_activation="tanh", precision="bf16", without="Y db"),
    Case(B=29, n=65, m=33, precision="bf16", accumulate=True, without="dX dW"),
    Case(B=601, n=6, m=33, precision="bf16", accumulate=True),
    Case(B=601, n=48, m=64, precision="bf16", accumulate=True),
    Case(B=300, n=5, m=7),  # long sums over rows
    Case(B=1500, n=6, m=33),
    Case(B=3, n=5, m=7, activation="relu"),
    Case(B=3, n=5, m=7, activation="relu", accumulate=True),
    Case(B=29, n=65, m=33, accumulate=True),
    Case(B=29, n=65, m=33, accumulate=True, without="Y db"),
    Case(B=29, n=65, m=33, accumulate=True, without="dW"),
    Case(B=29, n=65, m=33, without="dX"),
    Case(B=29, n=65, m=33, without="dW db"),
    Case(B=29, n=65, m=33, without="dX dW", activation="relu"),
    Case(B=131, n=300, m=141, activation="relu"),
    Case(B=131, n=300, m=141, activation="relu", accumulate=True),
    Case(B=29, n=65, m=33, activation="tanh", accumulate=True),
    Case(B=131, n=300, m=141, activation="tanh", input_activation="relu"),
    Case(B=29, n=65, m=33, input_activation="relu"),
    Case(B=131, n=128, m=300, input_activation="relu"),
    Case(B=131, n=300, m=141, input_activation="tanh"),
    Case(B=29, n=64, m=33, activation="relu", input_activation="tanh"),
    Case(B=29, n=64, m=33, input_activation="tanh", without="dX"),
    Case(B=3, n=5, m=0, input_activation="relu"),
    Case(B=300, n=70, m=3, accumulate=True),
    Case(B=300, n=70, m=10, accumulate=True, activation="relu"),
    Case(B=70, n=33, m=1, accumulate=True, without="dX"),
    Case(B=70, n=3, m=300, input_activation="relu"),
    Case(B=70, n=2, m=300, input_activation="tanh"),
    Case(B=301, n=1, m=70, accumulate=True),
    Case(B=0, n=4, m=3, accumulate=True),
    Case(B=0, n=4, m=3, activation="relu"),
    Case(B=3, n=0, m=3, activation="relu", accumulate=True),
]

ACTIVATIONS = ("none", "relu", "tanh")
PRECISIONS = ("full", "bf16")
BASE = Case(B=2, n=4, m=3)


def admits(case: Case, dtype: Any) -> bool:
    return case.attributes.get("precision") != "bf16" or dtype == np.float32


KERNELS = [
    Kernel(
        affine_forward,
        cases=FORWARD_CASES,
        attributes={"activation": ACTIVATIONS, "precision": PRECISIONS},
        admits=admits,
        scale=forward_scale,
        rows="B",
        specials="X W b",
        special_cases=[
            *(Case(B=9, n=17, m=33, activation=a) for a in ACTIVATIONS),
            Case(B=9, n=17, m=33, precision="bf16"),
        ],
        gradient=Gradient(
            [Case(B=4, n=3, m=5, activation=a) for a in ACTIVATIONS],
            {"X": "dX", "W": "dW", "b": "db"},
            "Y",
            affine_backward,
        ),
        public=Public(
            "affine",
            Case(B=6, n=5, m=4),
            lambda fd, a, **options: fd.ops.affine(a["X"], a["W"], a["b"], "relu", **options),
        ),
        errors=[
            Error(
                BASE,
                {"W": (5, 3)},
                "affine_forward: W must be float32(n m) with n = 4 (from X), got float32(5, 3)",
            ),
            Error(
                BASE,
                {"X": (2, 4, 1)},
                "affine_forward: X must be float32(B n), got float32(2, 4, 1)",
            ),
            Error(
                BASE,
                {"Y": (2, 9)},
                "affine_forward: Y must be float32(B m) with m = 3 (from W), got float32(2, 9)",
            ),
            Error(
                BASE,
                {"b": (4,)},
                "affine_forward: b must be float32(m) with m = 3 (from W), got float32(4,)",
            ),
            Error(
                BASE,
                {"activation": "gelu"},
                "^affine_forward: activation must be .*none.*relu.*, got .*gelu",
            ),
            Error(
                BASE,
                {"precision": "fp8"},
                "^affine_forward: precision must be .*full.*bf16.*, got .*fp8",
            ),
        ],
    ),
    Kernel(
        affine_backward,
        cases=BACKWARD_CASES,
        attributes={
            "activation": ACTIVATIONS,
            "accumulate": (False, True),
            "input_activation": ACTIVATIONS,
            "precision": PRECISIONS,
        },
        admits=admits,
        valid=lambda case: case.attributes["activation"] == "none" or "Y" not in case.without,
        scale=backward_scale,
        rows="B",
        row_cases=lambda case: not case.attributes.get("accumulate"),
        specials="dY X W Y",
        special_cases=[
            *(Case(B=9, n=17, m=33, activation=a) for a in ACTIVATIONS),
            *(Case(B=9, n=17, m=33, input_activation=a) for a in ACTIVATIONS[1:]),
            Case(B=9, n=17, m=33, activation="relu", precision="bf16"),
        ],
        errors=[
            Error(
                BASE,
                {"dW": (4, 4)},
                "affine_backward: dW must be float32(n m) with m = 3 (from dY), got float32(4, 4)",
            ),
            Error(
                BASE,
                {"activation": "relu", "Y": None},
                "affine_backward: Y must be the output of the forward pass when there is an "
                "activation, got nothing",
            ),
        ],
    ),
]
