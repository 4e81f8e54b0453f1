"""Stochastic gradient descent with momentum over a flat arena of parameters.

    g *= min(1, clip_norm / (sqrt(squares) + 1e-6)) unless clip_norm is 0
    g = -g if maximize;  g += wd theta;  buf = momentum buf + (1 - dampening) g   (buf = g at first)
    theta -= lr (g + momentum buf if nesterov else buf if momentum else g)
    ema += (1 - ema_decay) (theta - ema), where ema is NaN it becomes theta

Where theta and g are bfloat16, the step is taken in `master`, float32, which theta is rounded from.
Segment s of the arena ends at ends[s] and has its own step count.  Source: Sutskever et al., "On
the importance of initialization and momentum", ICML 2013, in the convention of torch.optim.SGD.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from opcase import Array, Case, Error, Kernel, Maker, Rng


def clipped(g: Array, clip_norm: float, squares: Array | None) -> Array:
    """The factor is taken in double, as NaN if the norm is."""
    if squares is None or clip_norm == 0:
        return g
    factor = clip_norm / (np.sqrt(squares) + 1e-6)
    return g * g.dtype.type(1 if factor > 1 else factor)


def weights(theta: Array, master: Array | None) -> Array:
    """What the step is taken in."""
    return theta if master is None else master


def averaged(ema: Array | None, theta: Array, decay: float) -> Array | None:
    if ema is None:
        return None
    return np.where(np.isnan(ema), theta, ema + theta.dtype.type(1 - decay) * (theta - ema))


def sgd_step(
    theta: Array, g: Array, steps: Array, ends: Array, hyper: Array, buf: Array | None = None,
    ema: Array | None = None, squares: Array | None = None, master: Array | None = None,
) -> dict[str, Array]:  # fmt: skip
    lr, momentum, dampening, wd, nesterov, maximize, clip_norm, ema_decay = map(float, hyper)
    theta, buf = weights(theta, master).copy(), None if buf is None else buf.copy()
    g = clipped(g, clip_norm, squares)
    starts = np.concatenate([[0], ends])[:-1].astype(int)
    for step, start, end in zip(steps, starts, ends, strict=True):
        own = slice(start, int(end))
        d = -g[own] if maximize else g[own]
        d = d + wd * theta[own] if wd else d
        if momentum and buf is not None:
            buf[own] = d if step == 0 else momentum * buf[own] + (1 - dampening) * d
            d = d + momentum * buf[own] if nesterov else buf[own]
        theta[own] = theta[own] - lr * d
    ema = averaged(ema, theta, ema_decay)
    new = None if master is None else theta
    return {"theta": theta, "master": new, "buf": buf, "ema": ema, "steps": steps + 1}


def scale(
    theta: Array, g: Array, hyper: Array, buf: Array | None = None, ema: Array | None = None,
    master: Array | None = None, **rest: Array,
) -> dict[str, Array]:  # fmt: skip
    theta = weights(theta, master)
    lr, momentum, _, wd = (abs(float(h)) for h in hyper[:4])
    size = np.abs(g) + (wd * np.abs(theta) if wd else 0)
    kept = size + (0 if buf is None else momentum * np.abs(buf))
    moved = np.abs(theta) + lr * (size + kept)
    return {"theta": moved, "master": moved, "buf": kept, "ema": scale_of_average(ema, moved)}


def scale_of_average(ema: Array | None, theta: Array) -> Array:
    return theta if ema is None else theta + np.nan_to_num(np.abs(ema))


# ---- arguments ----------------------------------------------------------------------------------


def hyper(
    lr: float = 0.1, momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0,
    nesterov: bool = False, maximize: bool = False, clip_norm: float = 0.0, ema_decay: float = 0.0,
) -> Array:  # fmt: skip
    options = lr, momentum, dampening, weight_decay, nesterov, maximize, clip_norm, ema_decay
    return np.array(options, float)


def some_hyper(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    nesterov = bool(rng.integers(2)) and "buf" not in case.without
    momentum = 0.0 if "buf" in case.without else rng.uniform(0.1, 0.99)
    dampening = 0.0 if nesterov else rng.uniform(0, 0.5)
    decay, maximize = rng.choice([0, 0.01]), bool(rng.integers(2))
    lr, extra = rng.uniform(1e-4, 0.1), clip_and_decay(rng, case)
    return hyper(lr, momentum, dampening, decay, nesterov, maximize, *extra)


def clip_and_decay(rng: Rng, case: Case) -> tuple[float, float]:
    """clip_norm and ema_decay, 0 where what they need is not given."""
    clip_norm = 0.0 if "squares" in case.without else rng.choice([0, 0.5, 100])
    return clip_norm, 0.0 if "ema" in case.without else rng.choice([0.5, 0.999])


def some_squares(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    return np.asarray(rng.choice([0.04, 25.0, 1e4]))


def some_average(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    """Some parameters' averages have not begun."""
    return np.where(rng.integers(0, 4, shape) == 0, np.nan, rng.standard_normal(shape))


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
PLAIN = "ema squares"
EXTRA = {"squares": some_squares, "ema": some_average}


def squares_of(value: float) -> Maker:
    def make(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
        return np.asarray(value)

    make.__name__ = f"{value:g}"
    return make


def extra_cases(hyper: Callable[..., Array], without: str, **more: Any) -> list[Case]:
    """Clipping and averaging, each alone and both, below the norm and above it, with odd norms."""
    both = hyper(clip_norm=0.5, ema_decay=0.9, **more)
    return [
        *(Case(P=100, S=3, without=without, hyper=both, squares=squares_of(v))
          for v in (0.0, 0.25, 9.0, 1e200, np.inf, np.nan)),
        *(Case(P=P, S=1, without=without, hyper=both) for P in SIZES),
        Case(P=100, S=3, without=f"{without} ema", hyper=hyper(clip_norm=0.5, maximize=True)),
        Case(P=100, S=3, without=f"{without} squares", hyper=hyper(ema_decay=0.999)),
        Case(P=100, S=3, without=without, hyper=hyper(ema_decay=0.999)),
        Case(P=200_003, S=5, without=without, hyper=both),
    ]  # fmt: skip


def extra_errors(kernel: str, hyper: Callable[..., Array]) -> list[Error]:
    """What clipping and averaging need."""
    base = Case(P=5, S=1, without="buf m2_max", hyper=hyper())
    text = f"{kernel}: {{}} must be given"
    return [
        Error(base, {"hyper": hyper(clip_norm=1.0), "squares": None},
              f"^{text.format('squares')} when clip_norm is not 0, got nothing"),
        Error(base, {"hyper": hyper(ema_decay=0.5), "ema": None},
              f"^{text.format('ema')} when ema_decay is not 0, got nothing"),
        Error(base, {"master": (5,)},
              f"{text.format('master')} for a theta in bfloat16 and for no other, got it"),
    ]  # fmt: skip


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
            *(Case(P=P, S=1, without=f"buf {PLAIN}", hyper=hyper()) for P in SIZES),
            *(Case(P=P, S=1, without=PLAIN, hyper=MOMENTUM) for P in SIZES),
            *(Case(P=100, S=3, without=PLAIN, hyper=h) for h in HYPERS),
            *(Case(P=100, S=3, without=PLAIN, hyper=h, steps=fresh) for h in HYPERS),
            Case(P=100, S=3, without=f"buf {PLAIN}", hyper=hyper(weight_decay=0.1, maximize=True)),
            Case(P=100, S=2, without=PLAIN, hyper=hyper()),
            Case(P=100, S=40, without=PLAIN, hyper=MOMENTUM),
            Case(P=0, S=1, without=PLAIN, hyper=MOMENTUM),
            Case(P=0, S=0, without=PLAIN, hyper=MOMENTUM),
            Case(P=200_003, S=5, without=PLAIN, hyper=HYPERS[1]),
            Case(P=200_003, S=1, without=f"buf {PLAIN}", hyper=hyper()),
            *extra_cases(hyper, "", momentum=0.9),
        ],
        values={"hyper": some_hyper, "ends": segments, "steps": some_steps, **EXTRA},
        sizes={"S": (1, 2, 3, 7)},
        scale=scale,
        only_bf16="master",
        specials="g theta",
        special_cases=[
            Case(P=70, S=2, hyper=MOMENTUM),
            Case(P=70, S=2, without="buf"),
            Case(P=70, S=2, hyper=hyper(momentum=0.9, clip_norm=0.5, ema_decay=0.9)),
        ],
        errors=[
            Error(Case(P=5, S=1), {"g": (4,)}, "^sgd_step: g must be .*P = 5 .from theta.*4"),
            Error(Case(P=5, S=1), {"ends": np.array([6])}, "^sgd_step: ends must .*6"),
            Error(Case(P=5, S=2), {"ends": np.array([3, 2])}, "^sgd_step: ends must "),
            Error(Case(P=5, S=2), {"ends": np.array([-1, 5])}, "^sgd_step: ends must "),
            Error(Case(P=5, S=1), {"hyper": np.zeros(6)}, "^sgd_step: hyper must be .*8"),
            *extra_errors("sgd_step", hyper),
        ],
    ),
]
