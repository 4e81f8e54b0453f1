"""Softmax cross entropy: the mean loss and the gradient of the logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.workload import Array, Call, Case

TRAFFIC = "copy"

SHAPES = [(128, 10), (256, 1000), (1024, 1000), (256, 32768), (64, 128256)]
QUICK = {(128, 10), (256, 1000)}
CASES = [
    Case(
        f"{B}x{C}",
        {"B": B, "C": C},
        quick=(B, C) in QUICK,
        cold=B * C < 1 << 20,
        megabytes=12 * B * C / 1e6,
    )
    for B, C in SHAPES
]


def _arrays(case: Case) -> tuple[Array, Array]:
    rng = case.rng()
    X = 10 * case.normal(rng, case["B"], case["C"])
    return X, rng.integers(0, case["C"], case["B"])


def fastdl(case: Case) -> Call:
    """The kernel from Python, outputs given."""
    from fastdl import _core

    X, t = _arrays(case)
    loss, dX = np.empty((), X.dtype), _core.empty(X, X.shape, X.dtype)  # as ops make results
    return Call(lambda: _core.cross_entropy_forward(X, t, total=loss, dX=dX))


def fastdl_tape(case: Case) -> Call:
    """A loss on the tape and its backward pass."""
    import fastdl as fd

    X, t = _arrays(case)
    logits, labels = fd.tensor(X, requires_grad=True), fd.tensor(t)

    def run() -> None:
        logits.grad = None
        fd.ops.cross_entropy(logits, labels).backward()  # type: ignore[union-attr]

    return Call(run)


def numpy(case: Case) -> Call:
    X, t = _arrays(case)
    P, rows = np.empty_like(X), np.arange(len(t))
    scale = X.dtype.type(1 / len(t))

    def run() -> Any:
        high = X.max(axis=1, keepdims=True)
        np.subtract(X, high, out=P)
        picked = P[rows, t]
        np.exp(P, out=P)
        total = P.sum(axis=1, keepdims=True)
        np.multiply(P, scale / total, out=P)
        P[rows, t] -= scale
        return np.mean(np.log(total[:, 0]) - picked)

    return Call(run)


def _torch_function(case: Case, compiled: bool) -> Call:
    import torch
    from torch.nn import functional

    X, t = (torch.from_numpy(a) for a in _arrays(case))
    X.requires_grad_()
    loss = torch.compile(functional.cross_entropy) if compiled else functional.cross_entropy
    return Call(lambda: torch.autograd.grad(loss(X, t), X))


def torch(case: Case) -> Call:
    return _torch_function(case, compiled=False)


def torch_compile(case: Case) -> Call:
    return _torch_function(case, compiled=True)


def jax(case: Case) -> Call:
    """By optax where it is there, which is the faster form."""
    import jax
    import jax.numpy as jnp

    try:
        from optax import softmax_cross_entropy_with_integer_labels as rows
    except ImportError:

        def rows(X: Any, t: Any) -> Any:
            picked = jnp.take_along_axis(X, t[:, None], 1)[:, 0]
            return jax.nn.logsumexp(X, axis=1) - picked

    X, t = (jnp.asarray(a) for a in _arrays(case))
    step = jax.jit(jax.value_and_grad(lambda X, t: rows(X, t).mean()))
    return Call(lambda: step(X, t), jax.block_until_ready)


CONTENDERS = {
    "fastdl": fastdl,
    "fastdl/tape": fastdl_tape,
    "numpy": numpy,
    "torch": torch,
    "torch_compile": torch_compile,
    "jax": jax,
}
