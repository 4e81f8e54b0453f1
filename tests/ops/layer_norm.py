"""Y = gamma xhat + beta, xhat = (X - mean) rstd along rows;  rstd = 1 / sqrt(var + eps).

The variance is biased.  With g = gamma dY:

    dbeta = sum_i dY       dgamma = sum_i dY xhat
    dX = rstd (g - mean(g) - xhat mean(g xhat)),  means along the row

Source: Ba, Kiros & Hinton, "Layer normalization", 2016; the conventions are torch.nn.LayerNorm's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from opcase import EDGE_SIZES, Array, Case, Error, Gradient, Kernel, Public, Rng, uniform

RESULTS = ("Y", "mean", "rstd")


def tall(row: Array) -> Array:
    """(B) against (B, n)."""
    return row[:, None]


def average(X: Array) -> Array:
    return X.sum(axis=1) / X.dtype.type(X.shape[1])


def layer_norm_forward(
    X: Array, gamma: Array | None = None, beta: Array | None = None, eps: float = 1e-5
) -> dict[str, Array]:
    mean = average(X)
    rstd = 1 / np.sqrt(average((X - tall(mean)) ** 2) + X.dtype.type(eps))
    Y = (X - tall(mean)) * tall(rstd)
    Y = Y if gamma is None else Y * gamma
    return {"Y": Y if beta is None else Y + beta, "mean": mean, "rstd": rstd}


def layer_norm_backward(
    dY: Array,
    X: Array,
    mean: Array,
    rstd: Array,
    gamma: Array | None = None,
    dgamma: Array | None = None,
    dbeta: Array | None = None,
    accumulate: bool = False,
) -> dict[str, Array]:
    xhat = (X - tall(mean)) * tall(rstd)
    g = dY if gamma is None else dY * gamma
    sum_dY, sum_dY_xhat = dY.sum(axis=0), (dY * xhat).sum(axis=0)
    add = accumulate
    return {
        "dX": tall(rstd) * (g - tall(average(g)) - xhat * tall(average(g * xhat))),
        "dgamma": sum_dY_xhat + dgamma if add and dgamma is not None else sum_dY_xhat,
        "dbeta": sum_dY + dbeta if add and dbeta is not None else sum_dY,
    }


def forward_scale(X: Array, **given: Any) -> dict[str, Array]:
    """An offset of the row costs no digits of Y: the scale knows xhat alone."""
    arguments = {k: v for k, v in given.items() if k not in RESULTS}
    out = layer_norm_forward(X, **arguments)
    xhat = np.abs((X - tall(out["mean"])) * tall(out["rstd"]))
    size = xhat + tall(xhat.max(axis=1, initial=1))
    gamma, beta = given.get("gamma"), given.get("beta")
    return {
        "Y": (size if gamma is None else size * np.abs(gamma)) + (0 if beta is None else abs(beta)),
        "mean": np.abs(out["mean"]) + 1 / out["rstd"],
        "rstd": out["rstd"],
    }


def backward_scale(dY: Array, X: Array, mean: Array, rstd: Array, **given: Any) -> dict[str, Array]:
    xhat = np.abs((X - tall(mean)) * tall(rstd))
    gamma = given.get("gamma")
    g = np.abs(dY if gamma is None else dY * gamma)
    s0, s1 = np.sqrt(average(g**2)), np.sqrt(average((g * xhat) ** 2))
    added = [np.abs(given[n]) if given["accumulate"] and n in given else 0
             for n in ("dgamma", "dbeta")]  # fmt: skip
    return {
        "dX": tall(rstd) * (g + tall(s0) + xhat * tall(s1)),
        "dgamma": np.sqrt(((dY * xhat) ** 2).sum(axis=0)) + added[0],
        "dbeta": np.sqrt((dY**2).sum(axis=0)) + added[1],
    }


# ---- arguments ----------------------------------------------------------------------------------


def far_from_zero(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    """A variance taken as E[x^2] - E[x]^2 would lose all its digits here."""
    return 1e4 + rng.standard_normal(shape)


def constant(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    return np.full(shape, 0.1)


def large_constant(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    """Its float32 sum over a row is rounded, and so is the mean taken from that."""
    return np.full(shape, 12345.678)


def of_any_size(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    """Rows from 1e-6 to 1e6."""
    return rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 7, (shape[0], 1))


VALUES = {"rstd": uniform(0.3, 3), "gamma": uniform(0.5, 2)}
SHAPES = [
    *((i % 7 + 1, n) for i, n in enumerate(EDGE_SIZES)),
    *((B, 40) for B in EDGE_SIZES),
    (9, 1023), (6, 1025), (5, 4097), (2, 70_001), (300, 65), (1100, 7), (67, 513), (3000, 2),
]  # fmt: skip
ODD = [Case(B=7, n=60, X=X) for X in (far_from_zero, constant, large_constant, of_any_size)]
LONG_ODD = [Case(B=5, n=2500, X=X) for X in (far_from_zero, constant, large_constant)]

KERNELS = [
    Kernel(
        layer_norm_forward,
        cases=[
            *(Case(B=B, n=n) for B, n in SHAPES),
            *ODD,
            *LONG_ODD,
            Case(B=5, n=7, without="gamma"),
            Case(B=5, n=7, without="beta"),
            Case(B=5, n=33, without="gamma beta"),
            Case(B=5, n=7, without="mean"),
            Case(B=5, n=7, without="mean rstd"),
            Case(B=5, n=7, eps=0.1),
            Case(B=5, n=7, eps=0.0),
            Case(B=0, n=4),
            Case(B=3, n=0),
        ],
        values=VALUES,
        attributes={"eps": (1e-5, 0.1)},
        valid=lambda case: case.sizes["n"] > 0,
        scale=forward_scale,
        rows="B",
        specials="X gamma beta",
        special_cases=[Case(B=9, n=7), Case(B=9, n=40), Case(B=6, n=1100)],
        gradient=Gradient(
            [
                Case(B=3, n=5),
                Case(B=3, n=5, without="gamma"),
                Case(B=3, n=5, without="beta"),
            ],
            {"X": "dX", "gamma": "dgamma", "beta": "dbeta"},
            "Y",
            layer_norm_backward,
        ),
        public=Public(
            "layer_norm",
            Case(B=6, n=5, without="mean rstd"),
            lambda fd, a, **options: fd.ops.layer_norm(
                a["X"], a["X"].shape[1:], a["gamma"], a["beta"], **options
            ),
        ),
        errors=[
            Error(
                Case(B=3, n=4),
                {"gamma": (5,)},
                "layer_norm_forward: gamma must be float32(n) with n = 4 (from X), "
                "got float32(5,)",
            ),
            Error(Case(B=3, n=4), {"rstd": (4,)}, "^layer_norm_forward: rstd must be .*B = 3"),
        ],
    ),
    Kernel(
        layer_norm_backward,
        cases=[
            *(Case(B=B, n=n) for B, n in SHAPES),
            *(Case(B=B, n=n, accumulate=True) for B, n in SHAPES[::5]),
            *ODD[1:],
            Case(B=5, n=7, without="gamma"),
            Case(B=5, n=7, without="gamma dX", accumulate=True),
            Case(B=5, n=7, without="dX"),
            Case(B=5, n=7, without="dgamma dbeta"),
            Case(B=5, n=7, without="dgamma", accumulate=True),
            Case(B=5, n=7, without="dX dbeta"),
            Case(B=300, n=3000),
            Case(B=0, n=4),
            Case(B=0, n=4, accumulate=True),
            Case(B=3, n=0),
        ],
        values=VALUES,
        attributes={"accumulate": (True, False)},
        valid=lambda case: case.sizes["n"] > 0,
        scale=backward_scale,
        rows="B",
        specials="dY X gamma mean",
        special_cases=[Case(B=9, n=7), Case(B=9, n=40), Case(B=6, n=1100)],
        errors=[
            Error(
                Case(B=3, n=4),
                {"mean": (4,)},
                "^layer_norm_backward: mean must be .*B = 3 .from .*, got float32.4",
            ),
        ],
    ),
]  # fmt: skip
