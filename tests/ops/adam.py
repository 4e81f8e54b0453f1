"""Adam, AdamW (`decoupled`) and AMSGrad (`m2_max` given) over a flat arena of parameters.

    g *= min(1, clip_norm / (sqrt(squares) + 1e-6)) unless clip_norm is 0
    g = -g if maximize;  decoupled: theta *= 1 - lr wd,  else g += wd theta
    m1 = beta1 m1 + (1 - beta1) g;   m2 = beta2 m2 + (1 - beta2) g^2;   m2_max = max(m2_max, m2)
    theta -= lr / (1 - beta1^t)  m1 / (sqrt(m2) / sqrt(1 - beta2^t) + eps)

Segment s ends at ends[s] and has its own step count t.  1 - beta and the bias corrections are
taken in double.  The moving average and `master` are sgd's.  Source: Kingma & Ba 2015; Loshchilov &
Hutter 2019; Reddi et al. 2018; the conventions are torch.optim.Adam's and AdamW's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from opcase import Array, Case, Error, Kernel, Rng, uniform

from ops.sgd import (
    EXTRA,
    PLAIN,
    SIZES,
    averaged,
    clip_and_decay,
    clipped,
    extra_cases,
    extra_errors,
    fresh,
    scale_of_average,
    segments,
    some_steps,
    weights,
)  # fmt: skip


def adam_step(
    theta: Array, g: Array, m1: Array, m2: Array, steps: Array, ends: Array, hyper: Array,
    m2_max: Array | None = None, ema: Array | None = None, squares: Array | None = None,
    master: Array | None = None, decoupled: bool = False,
) -> dict[str, Array]:  # fmt: skip
    lr, beta1, beta2, eps, wd, maximize, clip_norm, ema_decay = hyper
    g = clipped(g, clip_norm, squares)
    theta = weights(theta, master)
    real = theta.dtype.type
    theta, m1, m2 = theta.copy(), m1.copy(), m2.copy()
    m2_max = None if m2_max is None else m2_max.copy()
    starts = np.concatenate([[0], ends])[:-1].astype(int)
    for t, start, end in zip(steps + 1, starts, ends, strict=True):
        own = slice(start, int(end))
        d = -g[own] if maximize else g[own]
        if decoupled:
            theta[own] = theta[own] * real(1 - lr * wd)
        elif wd:
            d = d + real(wd) * theta[own]
        m1[own] = real(beta1) * m1[own] + real(1 - beta1) * d
        m2[own] = real(beta2) * m2[own] + real(1 - beta2) * d**2
        v = m2[own]
        if m2_max is not None:
            v = m2_max[own] = np.maximum(m2_max[own], v)
        denominator = np.sqrt(v) / real(np.sqrt(1 - beta2 ** int(t))) + real(eps)
        theta[own] = theta[own] - real(lr / (1 - beta1 ** int(t))) * (m1[own] / denominator)
    ema = averaged(ema, theta, ema_decay)
    return {
        "theta": theta, "master": None if master is None else theta, "m1": m1, "m2": m2,
        "m2_max": m2_max, "ema": ema, "steps": steps + 1,
    }  # fmt: skip


def scale(
    theta: Array, g: Array, m1: Array, m2: Array, hyper: Array, master: Array | None = None,
    **rest: Any,
) -> dict[str, Array]:  # fmt: skip
    """m1 and the decay may cancel; theta moves by lr m1 / (sqrt(m2) + eps)."""
    theta = weights(theta, master)
    args = {"theta": theta, "g": g, "m1": m1, "m2": m2, "hyper": hyper, **rest}
    _, beta1, beta2, _, wd = hyper[:5]
    d = np.abs(g) + (wd * np.abs(theta) if wd else 0)
    sizes = {
        "m1": beta1 * np.abs(m1) + (1 - beta1) * d,
        "m2": beta2 * m2 + (1 - beta2) * d**2,
    }
    new = adam_step(**args)
    moved = np.abs(new["theta"] - theta)
    part = np.divide(sizes["m1"], np.abs(new["m1"]), where=new["m1"] != 0, out=np.ones_like(m1))
    sizes["theta"] = sizes["master"] = np.abs(theta) + moved * part
    sizes["ema"] = scale_of_average(rest.get("ema"), sizes["theta"])
    return sizes if new["m2_max"] is None else {**sizes, "m2_max": sizes["m2"] + new["m2_max"]}


# ---- arguments ----------------------------------------------------------------------------------


def hyper(
    lr: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8,
    weight_decay: float = 0.0, maximize: bool = False, clip_norm: float = 0.0,
    ema_decay: float = 0.0,
) -> Array:  # fmt: skip
    return np.array([lr, beta1, beta2, eps, weight_decay, maximize, clip_norm, ema_decay], float)


def some_hyper(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    decay, maximize = rng.choice([0, 0.1]), bool(rng.integers(2))
    betas = rng.uniform(0.5, 0.95), rng.uniform(0.9, 0.9999)
    lr, eps, extra = rng.uniform(1e-4, 0.1), rng.choice([1e-8, 1e-3]), clip_and_decay(rng, case)
    return hyper(lr, *betas, eps, decay, maximize, *extra)


def check_reference() -> None:
    """The first step moves every parameter by lr against the sign of its gradient."""
    theta, g = np.array([1.0, -2.0, 3.0]), np.array([0.5, -4.0, 1e-3])
    zeros, one = np.zeros(3), np.array([3])
    new = adam_step(theta, g, zeros, zeros, np.array([0]), one, hyper(lr=0.1, eps=0.0))
    np.testing.assert_allclose(new["theta"], theta - 0.1 * np.sign(g), rtol=1e-14)


ADAMW = hyper(weight_decay=0.1)
NO_MAX = f"m2_max {PLAIN}"
HYPERS = [ADAMW, hyper(beta1=0.5, beta2=0.9), hyper(lr=0.5, eps=1e-3, maximize=True)]

KERNELS = [
    Kernel(
        adam_step,
        cases=[
            *(Case(P=P, S=1, without=NO_MAX, hyper=hyper()) for P in SIZES),
            *(Case(P=P, S=1, without=PLAIN, hyper=ADAMW, decoupled=True) for P in SIZES),
            *(Case(P=100, S=3, without=NO_MAX, hyper=h) for h in HYPERS),
            *(Case(P=100, S=3, without=PLAIN, hyper=h) for h in HYPERS),
            *(
                Case(P=100, S=3, without=PLAIN, hyper=h, steps=fresh, decoupled=True)
                for h in HYPERS
            ),
            Case(P=100, S=3, without=NO_MAX, hyper=ADAMW, decoupled=True),
            Case(P=100, S=40, without=NO_MAX, hyper=ADAMW),
            Case(P=0, S=1, without=PLAIN, hyper=ADAMW),
            Case(P=0, S=0, without=NO_MAX, hyper=ADAMW),
            Case(P=200_003, S=5, without=PLAIN, hyper=ADAMW, decoupled=True),
            Case(P=200_003, S=1, without=NO_MAX, hyper=hyper()),
            *extra_cases(hyper, "m2_max", weight_decay=0.1),
            Case(P=100, S=3, hyper=hyper(clip_norm=0.5, ema_decay=0.9), decoupled=True),
        ],
        values={
            "hyper": some_hyper, "ends": segments, "steps": some_steps, "m2": uniform(0.01, 2),
            "m2_max": uniform(0.01, 2), **EXTRA,
        },
        attributes={"decoupled": (False, True)},
        sizes={"S": (1, 2, 3, 7)},
        scale=scale,
        only_bf16="master",
        specials="g",
        special_cases=[Case(P=70, S=2, without=NO_MAX, hyper=ADAMW), Case(P=70, S=2, hyper=ADAMW),
            Case(P=70, S=2, hyper=hyper(clip_norm=0.5, ema_decay=0.9))],
        errors=[
            Error(Case(P=5, S=1), {"m1": (4,)}, "^adam_step: m1 must be .*P = 5 .from theta.*4"),
            Error(Case(P=5, S=1), {"ends": np.array([6])}, "^adam_step: ends must .*6"),
            Error(Case(P=5, S=2), {"ends": np.array([3, 2])}, "^adam_step: ends must "),
            Error(Case(P=5, S=1), {"hyper": np.zeros(6)}, "^adam_step: hyper must be .*8"),
            *extra_errors("adam_step", hyper),
        ],
    ),
]  # fmt: skip
