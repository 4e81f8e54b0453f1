"""log-softmax and negative log likelihood in one pass, with the gradient.

    log p = X - max - log sum exp(X - max)         q = target distribution of a row
    loss_i = - sum_c w_c q_ic log p_ic             dX_ic = (p_ic sum_c' w_c' q_ic' - w_c q_ic) / N

For labels t, q is (1 - s) onehot(t) + s / C, where the first term counts with w_t and the second
with w_c; rows with t == ignore_index count for nothing.  N is 1 for "none" and "sum"; for "mean" it
is sum_i w_(t_i), or B for soft targets.  The meaning is that of torch.nn.functional.cross_entropy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from opcase import Array, Case, Error, Gradient, Kernel, Public, Rng, uniform


def target_weights(
    X: Array, t: Array | None, P: Array | None, w: Array | None, ignore_index: int, s: float
) -> tuple[Array, Array]:
    """w_c q_ic for every row and class, and the weight of each row in a mean."""
    B, C = X.shape
    w = np.ones(C, X.dtype) if w is None else w
    if t is None:
        return w * (P * (1 - s) + s / C), np.ones(B, X.dtype)
    counts = t != ignore_index
    label = np.where(counts, t, 0)
    onehot = np.arange(C) == label[:, None]
    q = (onehot * (1 - s) + s / C).astype(X.dtype) if C else np.zeros_like(X)
    row_weight = np.where(counts, w[label], 0).astype(X.dtype) if C else np.zeros(B, X.dtype)
    return np.where(counts[:, None], w * q, 0).astype(X.dtype), row_weight


def log_softmax(X: Array) -> Array:
    Z = X - X.max(axis=1, keepdims=True, initial=-np.inf)
    return Z - np.log(np.exp(Z).sum(axis=1, keepdims=True))


def cross_entropy_forward(
    X: Array,
    t: Array | None = None,
    P: Array | None = None,
    w: Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> dict[str, Array]:
    wq, row_weight = target_weights(X, t, P, w, ignore_index, label_smoothing)
    logp = log_softmax(X)
    loss = -np.where(wq == 0, 0, wq * logp).sum(axis=1).astype(X.dtype)
    N = row_weight.sum() if reduction == "mean" else X.dtype.type(1)
    slope = np.exp(logp) * wq.sum(axis=1, keepdims=True) - wq
    dX = np.where(row_weight[:, None] == 0, 0, slope / N) if P is None else slope / N
    return {"loss": loss, "total": loss.sum() / N, "dX": dX.astype(X.dtype)}


def scale(X: Array, **given: Any) -> dict[str, Array]:
    """Rounding X - max costs eps |X - max| in log p, and so that much of p."""
    args = [given.get(k) for k in ("t", "P", "w")]
    wq, row_weight = target_weights(X, *args, given["ignore_index"], given["label_smoothing"])
    wq = np.abs(wq)
    Z = np.abs(X - X.max(axis=1, keepdims=True, initial=-np.inf))
    loss = np.where(wq == 0, 0, wq * (Z + np.log(X.shape[1]) + 1)).sum(axis=1)  # 0 * inf is 0
    N = row_weight.sum() if given["reduction"] == "mean" else 1
    slope = np.exp(log_softmax(X)) * (1 + Z) * wq.sum(axis=1, keepdims=True) + wq
    return {"loss": loss, "total": loss.sum() / N, "dX": slope / N}


# ---- arguments ----------------------------------------------------------------------------------


def labels(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    return rng.integers(0, case.sizes["C"], shape)


def labels32(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    return labels(rng, shape, case).astype(np.int32)


def ignoring(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    """Every third row has the ignored label."""
    t = labels(rng, shape, case)
    t[::3] = case.attributes.get("ignore_index", -100)
    return t


def all_ignored(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    return np.full(shape, -100)


def distribution(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    P = rng.exponential(size=shape)
    return P / P.sum(axis=1, keepdims=True)


def far_apart(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    """Logits that overflow exp on their own."""
    return 1e4 * rng.standard_normal(shape)


def rising(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    return np.linspace(-80, 80, int(np.prod(shape))).reshape(shape)


def masked(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    """Whole pieces are -inf, as are some logits of the others; the last piece is not."""
    X = rng.standard_normal(shape)
    X[:, : 5 * PIECE] = X[:, 9 * PIECE : -PIECE : 2] = -np.inf
    return X


def unmasked(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    return case.sizes["C"] - 1 - rng.integers(0, PIECE // 2, shape)


def in_order(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    """Every class is a label."""
    return np.arange(shape[0]) % case.sizes["C"]


PIECE = 4096  # of a row longer than 1 MiB
LONG = 262_147
CLASSES = (2, 3, 7, 10, 15, 16, 17, 31, 32, 33, 63, 64, 65, 95, 97, 111, 112, 113, 127)
HARD = "P"  # the argument left out when labels are given
SOFT = "t"

CASES = [
    *(Case(B=i % 5 + 1, C=C, without="P w") for i, C in enumerate(CLASSES)),
    *(Case(B=i % 4 + 2, C=C, without="t w") for i, C in enumerate(CLASSES)),
    *(Case(B=5, C=9, without=HARD, reduction=r) for r in ("none", "sum", "mean")),
    *(Case(B=5, C=9, without=SOFT, reduction=r) for r in ("none", "sum", "mean")),
    *(Case(B=7, C=19, without=HARD, reduction=r, label_smoothing=0.1) for r in ("none", "mean")),
    *(Case(B=7, C=19, without=SOFT, reduction=r, label_smoothing=0.1) for r in ("none", "mean")),
    *(Case(B=10, C=9, without=HARD, t=ignoring, reduction=r) for r in ("none", "sum", "mean")),
    Case(B=10, C=9, without="P w", t=ignoring, label_smoothing=0.3),
    Case(B=10, C=9, without="P w", t=ignoring, ignore_index=2),
    Case(B=10, C=9, without="P w", t=ignoring, ignore_index=-1),
    Case(B=4, C=9, without="P w", t=all_ignored),
    Case(B=4, C=9, without="P w", t=all_ignored, reduction="sum"),
    Case(B=6, C=11, without="P w", t=labels32),
    Case(B=6, C=11, without="P w", X=far_apart),
    Case(B=6, C=11, without="P w", X=rising, reduction="none"),
    Case(B=6, C=11, without="t w", X=far_apart),
    Case(B=6, C=1, without="P w"),
    Case(B=1, C=1, without="t w"),
    Case(B=0, C=5, without="P w"),
    Case(B=0, C=5, without="t w", reduction="sum"),
    Case(B=0, C=5, without=HARD, reduction="none"),
    Case(B=9, C=10, without="P w loss dX"),
    Case(B=9, C=10, without="P w total dX", reduction="none"),
    Case(B=9, C=10, without="P total loss"),
    Case(B=9, C=10, without="t total loss", label_smoothing=0.2),
    Case(B=2001, C=10, without="P w"),
    Case(B=700, C=301, without=HARD, t=ignoring, label_smoothing=0.1),
    Case(B=700, C=301, without=SOFT),
    Case(B=40, C=101, without=HARD, t=ignoring, label_smoothing=0.1),
    Case(B=40, C=49, without="t w", label_smoothing=0.1),
    Case(B=3, C=5003, without="P w"),
    Case(B=211, C=211, without="P w", t=in_order, reduction="sum"),
    Case(B=35, C=128, without=HARD, t=in_order, label_smoothing=0.1),
    # A gradient beyond the second-level cache.
    Case(B=260, C=4099, without="P w", t=ignoring, reduction="none"),
    Case(B=257, C=4099, without=SOFT, reduction="none"),
    Case(B=10, C=120_001, without=HARD, reduction="none", label_smoothing=0.1),
    # On a GPU the blocks of a cluster share a row: 2, 4 or 8, then 8 of twice as many threads.
    Case(B=3, C=20_011, without="P w", t=ignoring, reduction="none"),
    Case(B=2, C=40_003, without=HARD, label_smoothing=0.1),
    Case(B=2, C=100_003, without=SOFT, reduction="none"),
    Case(B=1, C=200_001, without="P w", reduction="none"),
    # Rows longer than the second-level cache, in pieces.
    *(Case(B=2, C=C, without="P w", reduction="none") for C in (LONG, 65 * PIECE)),
    Case(B=4, C=LONG, without=HARD, t=ignoring, label_smoothing=0.1),
    Case(B=1, C=LONG, without=SOFT, reduction="sum"),
    Case(B=2, C=LONG, without="P w", X=rising, reduction="none"),
    Case(B=2, C=LONG, without="P w", X=masked, t=unmasked, reduction="none", label_smoothing=0.1),
    Case(B=2, C=LONG, without="P w dX total", reduction="none"),
]

BASE = Case(B=3, C=4, without="P w")
NAME = "cross_entropy_forward: "

KERNELS = [
    Kernel(
        cross_entropy_forward,
        cases=CASES,
        values={"t": labels, "P": distribution, "w": uniform(0.2, 3)},
        attributes={
            "reduction": ("mean", "sum", "none"),
            "label_smoothing": (0.0, 0.1, 1.0),
            "ignore_index": (-100, 0, 3),
        },
        valid=lambda case: ("t" in case.without) != ("P" in case.without) and (case.sizes["C"] > 0),
        scale=scale,
        rows="B",
        row_cases=lambda case: case.attributes.get("reduction") in ("none", "sum"),
        specials="X",
        special_cases=[
            Case(B=9, C=17, without="P w", reduction="none"),
            Case(B=9, C=17, without="P w", reduction="mean"),
            Case(B=2, C=LONG, without="P w", reduction="none"),
            Case(B=2, C=20_011, without="P w", reduction="none"),
        ],
        gradient=Gradient(
            [
                Case(B=4, C=5, without=HARD, t=ignoring, label_smoothing=0.1),
                Case(B=4, C=5, without="P w", reduction="sum"),
                Case(B=4, C=5, without=SOFT, label_smoothing=0.2),
            ],
            {"X": "dX"},
            "total",
        ),
        public=Public(
            "cross_entropy",
            Case(B=6, C=5, without="P"),
            lambda fd, a, **options: fd.ops.cross_entropy(a["X"], a["t"], a["w"], **options),
        ),
        errors=[
            *(
                Error(
                    BASE,
                    {"t": np.array([0, label, 1])},
                    f"{NAME}t must be in [0, 4) or ignore_index, got {label} at row 1",
                )
                for label in (4, -1, 2**31, -(2**63))
            ),
            Error(BASE, {"t": (3,)}, "^" + NAME + "t must be int32.int64", TypeError),
            Error(BASE, {"t": np.array([0, 1])}, "^" + NAME + "t must be .*B = 3 .from X.*got"),
            Error(BASE, {"w": (5,)}, "^" + NAME + "w must be .*C = 4 .from X.*got float32.5"),
            Error(BASE, {"P": (3, 4)}, "^" + NAME + ".*exactly one|" + NAME + ".*(t|P) must"),
            Error(BASE, {"t": None}, "^" + NAME + ".*exactly one|" + NAME + ".*(t|P) must"),
            Error(BASE, {"label_smoothing": 1.5}, "^" + NAME + "label_smoothing must be .*1.5"),
            Error(BASE, {"label_smoothing": -0.1}, "^" + NAME + "label_smoothing must be .*-0.1"),
            Error(
                BASE,
                {"label_smoothing": float("nan")},
                "^" + NAME + "label_smoothing must be .*nan",
            ),
            Error(BASE, {"reduction": "avg"}, "^" + NAME + "reduction must be one of .*got 'avg'"),
        ],
    ),
]
