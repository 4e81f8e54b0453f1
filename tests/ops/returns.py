"""G_t = r_t + gamma G_t+1;  A_t = (r_t + gamma V_t+1 - V_t) + gamma lam A_t+1, returns = A + V.

What follows step t counts as 0 where t ended its episode.
"""

from __future__ import annotations

import numpy as np
from opcase import Array, Case, Error, Kernel, Public, Rng


def discounted_returns(
    rewards: Array, dones: Array, last_value: Array | None = None, gamma: float = 0.99
) -> dict[str, Array]:
    G = np.zeros_like(rewards)
    after = np.zeros_like(rewards[0]) if last_value is None else last_value
    g = rewards.dtype.type(gamma)
    for t in reversed(range(len(rewards))):
        G[t] = after = np.where(dones[t] != 0, rewards[t], rewards[t] + g * after)
    return {"returns": G}


def returns_scale(
    rewards: Array, dones: Array, last_value: Array | None = None, gamma: float = 0.99
) -> dict[str, Array]:
    last = None if last_value is None else np.abs(last_value)
    return discounted_returns(np.abs(rewards), dones, last, gamma)


def gae(
    rewards: Array,
    values: Array,
    dones: Array,
    last_values: Array,
    gamma: float = 0.99,
    lam: float = 0.95,
) -> dict[str, Array]:
    A = np.zeros_like(rewards)
    value, after = last_values, np.zeros_like(last_values)
    g, decay = rewards.dtype.type(gamma), rewards.dtype.type(gamma * lam)
    for t in reversed(range(len(rewards))):
        delta = np.where(dones[t] != 0, rewards[t], rewards[t] + g * value) - values[t]
        A[t] = after = np.where(dones[t] != 0, delta, delta + decay * after)
        value = values[t]
    return {"advantages": A, "returns": A + values}


def gae_scale(
    rewards: Array, values: Array, dones: Array, last_values: Array, gamma: float, lam: float
) -> dict[str, Array]:
    r, V, last = np.abs(rewards), np.abs(values), np.abs(last_values)
    A = gae(r, -V, dones, last, gamma, lam)["advantages"]
    A = A + 2 * np.abs(A).max(initial=0, where=np.isfinite(A))
    return {"advantages": A, "returns": A + V}


def ends(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    """Every fifth step or so ends an episode; any number but 0 says so."""
    return (rng.integers(0, 255, shape) * (rng.random(shape) < 0.2)).astype(np.uint8)


SIZES = [
    (1, 1), (5, 1), (2048, 1), (128, 8), (30, 15), (30, 16), (30, 17), (9, 33), (20, 1030),
    (7, 0), (40, 3000),
]  # fmt: skip
CASES = [Case(T=T, N=N) for T, N in SIZES]
BASE = Case(T=4, N=3)

KERNELS = [
    Kernel(
        discounted_returns,
        cases=[
            *CASES,
            *(Case(T=T, N=N, without="last_value") for T, N in [(6, 1), (30, 17)]),
            *(Case(T=9, N=5, gamma=g) for g in (0.0, 0.5, 1.0)),
        ],
        attributes={"gamma": (0.0, 0.9, 1.0)},
        values={"dones": ends},
        sizes={"T": (1, 2, 3, 17)},
        scale=returns_scale,
        specials="rewards last_value",
        special_cases=[Case(T=6, N=19)],
        public=Public(
            "discounted_returns",
            Case(T=6, N=5),
            lambda fd, a, **options: fd.ops.discounted_returns(
                a["rewards"], a["dones"], 0.9, a["last_value"], **options
            ),
        ),
        errors=[
            Error(BASE, {"gamma": 1.5}, "discounted_returns: gamma must be in [0, 1], got 1.5"),
            Error(BASE, {"gamma": float("nan")}, "^discounted_returns: gamma must be .*nan"),
            Error(BASE, {"last_value": (4,)}, "^discounted_returns: last_value must be .*N = 3"),
            Error(BASE, {"dones": (4, 3)}, "^discounted_returns: dones must be uint8", TypeError),
        ],
    ),
    Kernel(
        gae,
        cases=[
            *CASES,
            *(Case(T=9, N=5, gamma=g, lam=x) for g, x in [(0.0, 1.0), (1.0, 1.0), (0.9, 0.0)]),
        ],
        attributes={"gamma": (0.0, 0.9, 1.0), "lam": (0.0, 0.5, 1.0)},
        values={"dones": ends},
        sizes={"T": (1, 2, 3, 17)},
        scale=gae_scale,
        specials="rewards values last_values",
        special_cases=[Case(T=6, N=19)],
        public=Public(
            "gae",
            Case(T=6, N=5),
            lambda fd, a, **options: np.stack(
                fd.ops.gae(
                    a["rewards"], a["values"], a["dones"], a["last_values"], 0.9, 0.8, **options
                )
            ),
        ),
        errors=[
            Error(BASE, {"gamma": -0.5}, "gae: gamma must be in [0, 1], got -0.5"),
            Error(BASE, {"lam": 2.0}, "gae: lam must be in [0, 1], got 2"),
            Error(BASE, {"values": (4, 2)}, "^gae: values must be .*N = 3 .from rewards.*got"),
        ],
    ),
]
