"""Y = act(gamma (X - mean) rstd + beta), by channel over N and S;  rstd = 1 / sqrt(var + eps).

Training uses the batch's mean and biased variance and moves the running statistics towards the
batch's mean and unbiased variance: r += f (new - r), f = momentum, or 1 / (number of batches so
far) for a negative momentum.  Inference uses the running statistics.  With xhat = (X - mean) rstd
and dZ = dY act'(Z):

    dbeta = sum dZ       dgamma = sum dZ xhat
    dX = gamma rstd (dZ - dbeta / M - xhat dgamma / M)  in training,  gamma rstd dZ  in inference

Source: Ioffe & Szegedy, "Batch normalization", 2015; the conventions are torch.nn.BatchNorm1d's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from opcase import EDGE_SIZES, Array, Case, Error, Gradient, Kernel, Public, Rng, uniform

RESULTS = ("Y", "mean", "rstd")


def wide(channel: Array) -> Array:
    """(C) against (N, C, S)."""
    return channel[None, :, None]


def batch_norm_forward(
    X: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    num_batches: Array | None = None,
    eps: float = 1e-5,
    momentum: float = 0.1,
    training: bool = True,
    activation: str = "none",
) -> dict[str, Array]:
    new: dict[str, Array] = {}
    mean, var = running_mean, running_var
    M = X.shape[0] * X.shape[2]
    if training:
        mean = X.sum(axis=(0, 2)) / X.dtype.type(M)
        var = ((X - wide(mean)) ** 2).sum(axis=(0, 2)) / X.dtype.type(M)
        if num_batches is not None:
            new["num_batches"] = num_batches + 1
        f = momentum if momentum >= 0 else 1 / int(new["num_batches"])
        if running_mean is not None:
            new["running_mean"] = (1 - f) * running_mean + f * mean
        if running_var is not None:
            new["running_var"] = (1 - f) * running_var + f * (var * (M / max(M - 1, 1)))
    rstd = 1 / np.sqrt(var + eps)
    Y = (X - wide(mean)) * wide(rstd)
    Y = Y if gamma is None else Y * wide(gamma)
    Y = Y if beta is None else Y + wide(beta)
    Y = np.maximum(Y, 0) if activation == "relu" else Y
    unchanged = {
        "running_mean": running_mean, "running_var": running_var, "num_batches": num_batches,
    }  # fmt: skip
    return {**unchanged, "Y": Y, "mean": mean, "rstd": rstd, **new}


def batch_norm_backward(
    dY: Array,
    X: Array,
    mean: Array,
    rstd: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    dgamma: Array | None = None,
    dbeta: Array | None = None,
    training: bool = True,
    activation: str = "none",
    accumulate: bool = False,
) -> dict[str, Array]:
    xhat = (X - wide(mean)) * wide(rstd)
    if activation == "relu":
        Z = xhat if gamma is None else xhat * wide(gamma)
        dY = np.where((Z if beta is None else Z + wide(beta)) <= 0, 0, dY).astype(dY.dtype)
    sum_dY, sum_dY_xhat = dY.sum(axis=(0, 2)), (dY * xhat).sum(axis=(0, 2))
    factor = rstd if gamma is None else gamma * rstd
    M = X.dtype.type(X.shape[0] * X.shape[2])
    inner = dY - wide(sum_dY) / M - xhat * wide(sum_dY_xhat) / M if training else dY
    add = accumulate
    return {
        "dX": wide(factor) * inner,
        "dgamma": sum_dY_xhat + dgamma if add and dgamma is not None else sum_dY_xhat,
        "dbeta": sum_dY + dbeta if add and dbeta is not None else sum_dY,
    }


def forward_scale(X: Array, **given: Any) -> dict[str, Array]:
    """X - mean cancels: its error is that of |X| + |mean|."""
    out = batch_norm_forward(X, **{k: v for k, v in given.items() if k not in RESULTS})
    gamma, beta = given.get("gamma"), given.get("beta")
    magnitude = (np.abs(X) + np.abs(wide(out["mean"]))) * wide(out["rstd"])
    size = magnitude.max(axis=(0, 2), initial=0)  # the statistics see the largest
    factor = 1 if gamma is None else wide(np.abs(gamma))
    shift = 0 if beta is None else wide(np.abs(beta))
    sizes = {k: np.abs(v) for k, v in out.items() if v is not None}
    sizes["Y"] = factor * np.maximum(magnitude, wide(size) if given["training"] else 0) + shift
    sizes["mean"] = np.abs(X).max(axis=(0, 2), initial=0) + np.abs(out["mean"])
    sizes["rstd"] = np.abs(out["rstd"]) * (1 + size)
    for name, term in (("running_mean", sizes["mean"]), ("running_var", (1 + size))):
        if name in sizes:
            sizes[name] = sizes[name] + term
    return sizes


def backward_scale(dY: Array, X: Array, mean: Array, rstd: Array, **given: Any) -> dict[str, Array]:
    xhat = (np.abs(X) + np.abs(wide(mean))) * wide(rstd)
    M = X.shape[0] * X.shape[2]
    s0 = np.sqrt((dY**2).sum(axis=(0, 2)))
    s1 = np.sqrt(((dY * xhat) ** 2).sum(axis=(0, 2)))
    gamma = given.get("gamma")
    factor = np.abs(rstd if gamma is None else gamma * rstd)
    training = given["training"] and M > 0
    inner = np.abs(dY) + (wide(s0) / M + xhat * wide(s1) / M if training else 0)
    added = [np.abs(given[n]) if given["accumulate"] and n in given else 0
             for n in ("dgamma", "dbeta")]  # fmt: skip
    return {"dX": wide(factor) * inner, "dgamma": s1 + added[0], "dbeta": s0 + added[1]}


# ---- arguments ----------------------------------------------------------------------------------


def far_from_zero(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    """A variance taken as E[x^2] - E[x]^2 would lose all its digits here."""
    return 1000 + rng.standard_normal(shape)


def constant(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    return np.full(shape, 0.75)


def seventh(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    return np.array(7)


def is_a_call(case: Case) -> bool:
    if not case.attributes["training"]:
        return not case.without & {"running_mean", "running_var"}
    counted = case.attributes["momentum"] >= 0 or "num_batches" not in case.without
    return counted and case.sizes["N"] * case.sizes["S"] > 1


VALUES = {
    "running_var": uniform(0.5, 2),
    "rstd": uniform(0.3, 3),
    "gamma": uniform(0.5, 2),
    "num_batches": seventh,
}
SHAPES = [
    *((i % 7 + 2, C, 1) for i, C in enumerate(EDGE_SIZES)),
    *((3, i % 5 + 1, S) for i, S in enumerate(EDGE_SIZES)),
    (257, 3, 1), (1000, 65, 1), (4, 3, 1000), (64, 32, 49), (300, 301, 1),
    # On a GPU clusters of 1, 2, 4 and 8 blocks have a channel on chip.
    (1, 70, 300), (2, 40, 260), (3, 20, 257), (2, 1, 30_001),
    (135, 1030, 1),  # rows of a page
]  # fmt: skip
NO_STATE = "running_mean running_var num_batches"
BASE = Case(N=3, C=4, S=2)
TOO_LONG = Case(N=1, C=1, S=225_001)  # for eight blocks: in float64, and two arrays of float32

KERNELS = [
    Kernel(
        batch_norm_forward,
        cases=[
            *(Case(N=N, C=C, S=S) for N, C, S in SHAPES),
            *(Case(N=N, C=C, S=S, training=False) for N, C, S in SHAPES),
            Case(N=5, C=7, S=3, without="gamma"),
            Case(N=5, C=7, S=3, without="beta"),
            Case(N=5, C=7, S=3, without="gamma beta " + NO_STATE),
            Case(N=5, C=7, S=3, without="mean rstd"),
            Case(N=5, C=7, S=3, without="num_batches"),
            Case(N=5, C=7, S=3, without="gamma beta mean rstd num_batches", training=False),
            Case(N=5, C=7, S=3, momentum=-1.0),
            Case(N=5, C=7, S=3, momentum=0.0),
            Case(N=5, C=7, S=3, momentum=1.0),
            Case(N=5, C=7, S=3, eps=0.1),
            TOO_LONG,
            Case(N=64, C=33, S=1, X=far_from_zero),
            Case(N=700, C=130, S=2, X=far_from_zero),
            Case(N=6, C=5, S=3, X=constant),
            Case(N=0, C=5, S=1, training=False),
            Case(N=4, C=0, S=1),
            Case(N=4, C=3, S=0, training=False),
            *(Case(N=N, C=C, S=S, activation="relu") for N, C, S in SHAPES[::3]),
            *(Case(N=N, C=C, S=S, activation="relu", training=False) for N, C, S in SHAPES[1::3]),
            Case(N=5, C=7, S=3, without="gamma beta", activation="relu"),
        ],
        values=VALUES,
        attributes={
            "eps": (1e-5, 0.1), "momentum": (0.1, 0.7, -1.0), "training": (True, False),
            "activation": ("none", "relu"),
        },
        valid=is_a_call,
        scale=forward_scale,
        rows="N",
        row_cases=lambda case: case.attributes.get("training") is False,
        specials="X",
        special_cases=[
            Case(N=9, C=17, S=1),
            Case(N=9, C=17, S=2, training=False),
            Case(N=9, C=17, S=2, activation="relu"),
        ],
        gradient=Gradient(
            [
                Case(N=4, C=3, S=2),
                Case(N=4, C=3, S=2, without="beta gamma"),
                Case(N=4, C=3, S=2, training=False),
                Case(N=4, C=3, S=2, activation="relu"),
                Case(N=4, C=3, S=2, activation="relu", training=False, without="gamma"),
            ],
            {"X": "dX", "gamma": "dgamma", "beta": "dbeta"},
            "Y",
            batch_norm_backward,
        ),
        public=Public(
            "batch_norm",
            Case(N=6, C=5, S=2, without="num_batches mean rstd"),
            lambda fd, a, **options: fd.ops.batch_norm(
                a["X"], a["running_mean"], a["running_var"], a["gamma"], a["beta"], True, **options
            ),
        ),
        errors=[
            Error(
                BASE,
                {"gamma": (5,)},
                "batch_norm_forward: gamma must be float32(C) with C = 4 (from X), "
                "got float32(5,)",
            ),
            Error(
                BASE,
                {"training": False, "running_mean": None},
                "^batch_norm_forward: running_mean must ",
            ),
            Error(
                BASE,
                {"training": False, "running_var": None},
                "^batch_norm_forward: running_",
            ),
            Error(BASE, {"num_batches": (1,)}, "^batch_norm_forward: num_batches must", TypeError),
            Error(BASE, {"activation": "tanh"},
                  "batch_norm_forward: activation must be none or relu, got tanh"),
            Error(BASE, {"training": 1}, "^batch_norm_forward: training must be True or False, "
                  "got 1", TypeError),
        ],
    ),
    Kernel(
        batch_norm_backward,
        cases=[
            *(Case(N=N, C=C, S=S) for N, C, S in SHAPES),
            *(Case(N=N, C=C, S=S, training=False) for N, C, S in SHAPES[::4]),
            Case(N=5, C=7, S=3, without="gamma"),
            Case(N=5, C=7, S=3, accumulate=True),
            Case(N=5, C=7, S=3, accumulate=True, without="dX"),
            Case(N=5, C=7, S=3, without="dgamma dbeta"),
            Case(N=5, C=7, S=3, without="dgamma", training=False),
            Case(N=5, C=7, S=3, without="dX dbeta"),
            TOO_LONG,
            Case(N=300, C=301, S=1, accumulate=True),
            Case(N=4, C=0, S=1),
            Case(N=0, C=4, S=1, training=False, accumulate=True),
            *(Case(N=N, C=C, S=S, activation="relu") for N, C, S in SHAPES),
            *(Case(N=N, C=C, S=S, activation="relu", training=False) for N, C, S in SHAPES[::4]),
            Case(N=5, C=7, S=3, activation="relu", without="gamma"),
            Case(N=5, C=7, S=3, activation="relu", without="beta"),
            Case(N=5, C=7, S=300, activation="relu", without="gamma beta dX"),
            Case(N=5, C=7, S=3, activation="relu", without="dgamma dbeta", training=False),
        ],
        values=VALUES,
        attributes={
            "training": (True, False), "accumulate": (True, False), "activation": ("none", "relu"),
        },
        valid=lambda case: case.sizes["N"] * case.sizes["S"] > 0,
        scale=backward_scale,
        rows="N",
        row_cases=lambda case: case.attributes.get("training") is False,
        specials="dY X",
        special_cases=[
            Case(N=9, C=17, S=1),
            Case(N=9, C=17, S=2, training=False),
            Case(N=9, C=17, S=2, training=False, activation="relu"),
        ],
        errors=[
            Error(
                BASE,
                {"mean": (5,)},
                "^batch_norm_backward: mean must be .*C = 4 .from .*, got float32.5",
            ),
            Error(BASE, {"activation": "tanh"},
                  "batch_norm_backward: activation must be none or relu, got tanh"),
        ],
    ),
]  # fmt: skip
