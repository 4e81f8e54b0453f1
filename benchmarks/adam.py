"""A step of AdamW, from one array of parameters to the twelve of a small net."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.workload import Array, Call, Case

TRAFFIC = "adam"
LR, BETA1, BETA2, EPS, DECAY = 1e-3, 0.9, 0.999, 1e-8, 1e-2

MLP12 = [(17, 64), (64,), *[(64, 64), (64,)] * 4, (64, 6), (6,)]
SETS: dict[str, list[tuple[int, ...]]] = {
    "12 tensors, 18k": MLP12,
    "1e4": [(10_000,)],
    "1e6": [(1_000_000,)],
    "2.5e7": [(25_000_000,)],
    "1e8": [(100_000_000,)],
}
CASES = [
    Case(
        f"adamw {name}",
        {"shapes": shapes},
        quick=name in ("12 tensors, 18k", "1e6"),
        megabytes=20 * sum(int(np.prod(s)) for s in shapes) / 1e6,
    )
    for name, shapes in SETS.items()
]
#: Clipping reads the gradients once more; the average is an array read and written.
OPTIONS: dict[str, dict[str, float]] = {"clip": {"clip_norm": 1.0}, "ema": {"ema_decay": 0.999}}
CASES += [
    Case(
        f"adamw {name}, {' and '.join(options)}",
        {"shapes": SETS[name], "options": {k: v for o in options for k, v in OPTIONS[o].items()}},
        megabytes=28 * sum(int(np.prod(s)) for s in SETS[name]) / 1e6,
    )
    for name in ("1e6", "2.5e7")
    for options in (("clip",), ("ema",), ("clip", "ema"))
]


def _arrays(case: Case) -> tuple[list[Array], list[Array]]:
    """Parameters and gradients."""
    rng, shapes = case.rng(), case["shapes"]
    return [case.normal(rng, *s) for s in shapes], [case.normal(rng, *s) for s in shapes]


def _option(case: Case, name: str) -> float | None:
    value = case.sizes.get("options", {}).get(name)
    return None if value is None else float(value)


def fastdl(case: Case) -> Call:
    import fastdl as fd

    values, grads = _arrays(case)
    params = [fd.nn.Parameter(v) for v in values]
    for p, g in zip(params, grads, strict=True):
        p.grad = fd.tensor(g)
    options = case.sizes.get("options", {})
    optimizer = fd.optim.AdamW(params, LR, (BETA1, BETA2), EPS, DECAY, **options)
    return Call(optimizer.step)


def numpy(case: Case) -> Call | None:
    """In place, a scratch array at hand."""
    if case.sizes.get("options"):
        return None
    values, grads = _arrays(case)
    rows = [(v, g, *(np.zeros_like(v) for _ in range(3))) for v, g in zip(values, grads)]  # noqa: B905
    t = [0]

    def update(theta: Array, g: Array, m1: Array, m2: Array, scratch: Array) -> None:
        theta *= 1 - LR * DECAY
        np.multiply(g, 1 - BETA1, out=scratch)
        m1 *= BETA1
        m1 += scratch
        np.multiply(g, g, out=scratch)
        scratch *= 1 - BETA2
        m2 *= BETA2
        m2 += scratch
        np.sqrt(m2, out=scratch)
        scratch *= (1 - BETA2 ** t[0]) ** -0.5
        scratch += EPS
        np.divide(m1, scratch, out=scratch)
        scratch *= LR / (1 - BETA1 ** t[0])
        theta -= scratch

    def run() -> None:
        t[0] += 1
        for row in rows:
            update(*row)

    return Call(run)


def torch(case: Case) -> Call:
    """With ``fused=True``, the fastest of its three implementations; the average as
    ``torch.optim.swa_utils.get_ema_multi_avg_fn`` does it."""
    import torch

    values, grads = _arrays(case)
    params = [torch.nn.Parameter(torch.from_numpy(v)) for v in values]
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.from_numpy(g)
    options: Any = {"betas": (BETA1, BETA2), "eps": EPS, "weight_decay": DECAY, "fused": True}
    step = torch.optim.AdamW(params, LR, **options).step
    clip_norm, decay = _option(case, "clip_norm"), _option(case, "ema_decay")
    averages = [p.detach().clone() for p in params] if decay is not None else []

    def run() -> None:
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(params, clip_norm)
        step()
        if decay is not None:
            with torch.no_grad():
                torch._foreach_lerp_(averages, params, 1 - decay)

    return Call(run)


def jax(case: Case) -> Call | None:
    """By optax; parameters and state are donated, so that they may be updated in place."""
    if case.sizes.get("options"):
        return None
    import jax
    import optax

    values, grads = _arrays(case)
    optimizer = optax.adamw(LR, BETA1, BETA2, EPS, weight_decay=DECAY)
    params = [jax.numpy.array(v) for v in values]
    g = [jax.numpy.array(x) for x in grads]

    def update(params: Any, state: Any, g: Any) -> Any:
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(update, donate_argnums=(0, 1))
    held = [params, optimizer.init(params)]

    def run() -> Any:
        held[:] = step(*held, g)
        return held

    return Call(run, jax.block_until_ready)


CONTENDERS = {"fastdl": fastdl, "numpy": numpy, "torch": torch, "jax": jax}
