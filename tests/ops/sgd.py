"""Stochastic gradient descent with momentum over a flat arena of parameters.

    g = -g if maximize;  g += wd theta;  buf = momentum buf + (1 - dampening) g   (buf = g at first)
    theta -= lr (g + momentum buf if nesterov else buf if momentum else g)

Segment s of the arena ends at ends[s] and has its own step count.  Source: Sutskever et al., "On
the importance of initialization and momentum", ICML 2013, in the convention of torch.optim.SGD.
"""

from __future__ import annotations

import numpy as np
from opcase import Array, Case, Error, Kernel, Rng


def sgd_step(
    theta: Array, g: Array, steps: Array, ends: Array, hyper: Array, buf: Array | None = None
) -> dict[str, Array]:
    lr, momentum, dampening, wd, nesterov, maximize = (float(h) for h in hyper)
    theta, buf = theta.copy(), None if buf is None else buf.copy()
    starts = np.concatenate([[0], ends])[:-1].astype(int)
    for step, start, end in zip(steps, starts, ends, strict=True):
        own = slice(start, int(end))
        d = -g[own] if maximize else g[own]
        d = d + wd * theta[own] if wd else d
        if momentum and buf is not None:
            buf[own] = d if step == 0 else momentum * buf[own] + (1 - dampening) * d
            d = d + momentum * buf[own] if nesterov else buf[own]
        theta[own] = theta[own] - lr * d
    return {"theta": theta, "buf": buf, "steps": steps + 1}


def scale(
    theta: Array, g: Array, hyper: Array, buf: Array | None = None, **rest: Array
) -> dict[str, Array]:
    lr, momentum, _, wd, _, _ = (abs(float(h)) for h in hyper)
    size = np.abs(g) + (wd * np.abs(theta) if wd else 0)
    kept = size + (0 if buf is None else momentum * np.abs(buf))
    return {"theta": np.abs(theta) + lr * (size + kept), "buf": kept}


# ---- arguments ----------------------------------------------------------------------------------


def hyper(
    lr: float = 0.1, momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0,
    nesterov: bool = False, maximize: bool = False,
) -> Array:  # fmt: skip
    return np.array([lr, momentum, dampening, weight_decay, nesterov, maximize], float)


def some_hyper(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    nesterov = bool(rng.integers(2)) and "buf" not in case.without
    momentum = 0.0 if "buf" in case.without else rng.uniform(0.1, 0.99)
    dampening = 0.0 if nesterov else rng.uniform(0, 0.5)
    decay, maximize = rng.choice([0, 0.01]), bool(rng.integers(2))
    return hyper(rng.uniform(1e-4, 0.1), momentum, dampening, decay, nesterov, maximize)


def segments(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    """S segments, some perhaps empty, that end with the arena."""
    inner = np.sort(rng.integers(0, case.sizes["P"] + 1, max(shape[0] - 1, 0)))
    return np.concatenate([inner, [case.sizes["P"]]])[: shape[0]].astype(np.int64)


def some_steps(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    """Fresh and old segments side by side."""
    return np.where(rng.integers(0, 2, shape) == 0, 0, rng.integers(1, 2000, shape))


def fresh(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    return np.zeros(shape, np.int64)


SIZES = (1, 7, 15, 16, 17, 33, 63, 64, 65, 127, 1001)
MOMENTUM = hyper(momentum=0.9)
HYPERS = [
    MOMENTUM,
    hyper(momentum=0.9, nesterov=True),
    hyper(momentum=0.9, dampening=0.5),
    hyper(momentum=0.9, weight_decay=0.01, maximize=True),
    hyper(momentum=0.5, nesterov=True, weight_decay=0.1),
]

KERNELS = [
    Kernel(
        sgd_step,
        cases=[
            *(Case(P=P, S=1, without="buf", hyper=hyper()) for P in SIZES),
            *(Case(P=P, S=1, hyper=MOMENTUM) for P in SIZES),
            *(Case(P=100, S=3, hyper=h) for h in HYPERS),
            *(Case(P=100, S=3, hyper=h, steps=fresh) for h in HYPERS),
            Case(P=100, S=3, without="buf", hyper=hyper(weight_decay=0.1, maximize=True)),
            Case(P=100, S=2, hyper=hyper()),
            Case(P=100, S=40, hyper=MOMENTUM),
            Case(P=0, S=1, hyper=MOMENTUM),
            Case(P=0, S=0, hyper=MOMENTUM),
            Case(P=200_003, S=5, hyper=HYPERS[1]),
            Case(P=200_003, S=1, without="buf", hyper=hyper()),
        ],
        values={"hyper": some_hyper, "ends": segments, "steps": some_steps},
        sizes={"H": (6,), "S": (1, 2, 3, 7)},
        scale=scale,
        specials="g theta",
        special_cases=[Case(P=70, S=2, hyper=MOMENTUM), Case(P=70, S=2, without="buf")],
        errors=[
            Error(Case(P=5, S=1), {"g": (4,)}, "^sgd_step: g must be .*P = 5 .from theta.*4"),
            Error(Case(P=5, S=1), {"ends": np.array([6])}, "^sgd_step: ends must .*6"),
            Error(Case(P=5, S=2), {"ends": np.array([3, 2])}, "^sgd_step: ends must "),
            Error(Case(P=5, S=2), {"ends": np.array([-1, 5])}, "^sgd_step: ends must "),
            Error(Case(P=5, S=1), {"hyper": np.zeros(5)}, "^sgd_step: hyper must be .*6"),
        ],
    ),
]
