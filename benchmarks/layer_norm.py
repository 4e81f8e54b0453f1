"""Layer norm: forward, then dX, dgamma and dbeta."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.workload import Array, Call, Case

TRAFFIC = "copy"
EPS = 1e-5

SHAPES = [(32, 128), (256, 256), (512, 768), (4096, 1024), (8192, 4096)]
CASES = [
    Case(
        f"{B}x{n}",
        {"shape": (B, n)},
        quick=(B, n) in SHAPES[1:3],
        cold=B * n < 1 << 21,
        megabytes=24 * B * n / 1e6,
    )
    for B, n in SHAPES
]


def _arrays(case: Case) -> tuple[Array, Array, Array, Array]:
    rng, shape = case.rng(), case["shape"]
    X, dY = case.normal(rng, *shape), case.normal(rng, *shape)
    return X, dY, 1 + case.normal(rng, shape[1]), case.normal(rng, shape[1])


def fastdl(case: Case) -> Call:
    """The kernels from Python, outputs given."""
    from fastdl import _core

    X, dY, gamma, beta = _arrays(case)
    arrays = (X, X, gamma, beta)
    Y, dX, dgamma, dbeta = (_core.empty(a, a.shape, a.dtype) for a in arrays)  # as ops make results
    mean, rstd = np.empty_like(X[:, 0]), np.empty_like(X[:, 0])

    def run() -> None:
        _core.layer_norm_forward(X, gamma, beta, Y, mean, rstd, EPS)
        _core.layer_norm_backward(dY, X, gamma, mean, rstd, dX, dgamma, dbeta)

    return Call(run)


def numpy(case: Case) -> Call:
    X, dY, gamma, beta = _arrays(case)
    n = X.shape[1]
    xhat, Y, dX = np.empty_like(X), np.empty_like(X), np.empty_like(X)

    def run() -> Any:
        np.subtract(X, X.mean(axis=1, keepdims=True), out=xhat)
        var = np.square(xhat, out=Y).mean(axis=1, keepdims=True)
        rstd = 1 / np.sqrt(var + X.dtype.type(EPS))
        np.multiply(xhat, rstd, out=xhat)
        np.multiply(xhat, gamma, out=Y)
        np.add(Y, beta, out=Y)
        dbeta = dY.sum(axis=0)
        dgamma = np.multiply(dY, xhat, out=dX).sum(axis=0)
        slope = dX @ gamma[:, None] / n
        np.multiply(dY, gamma, out=dX)
        np.subtract(dX, dX.mean(axis=1, keepdims=True), out=dX)
        np.subtract(dX, np.multiply(xhat, slope, out=xhat), out=dX)
        np.multiply(dX, rstd, out=dX)
        return dgamma, dbeta

    return Call(run)


def _torch_function(case: Case, compiled: bool) -> Call:
    import torch
    from torch.nn import functional

    X, dY, gamma, beta = (torch.from_numpy(a) for a in _arrays(case))
    inputs = [a.requires_grad_() for a in (X, gamma, beta)]

    def layer(X: Any, gamma: Any, beta: Any) -> Any:
        return functional.layer_norm(X, X.shape[1:], gamma, beta, EPS)

    apply = torch.compile(layer) if compiled else layer
    return Call(lambda: torch.autograd.grad(apply(*inputs), inputs, dY))


def torch(case: Case) -> Call:
    return _torch_function(case, compiled=False)


def torch_compile(case: Case) -> Call:
    return _torch_function(case, compiled=True)


def jax(case: Case) -> Call:
    import jax
    import jax.numpy as jnp

    X, dY, gamma, beta = (jnp.asarray(a) for a in _arrays(case))

    def layer(X: Any, gamma: Any, beta: Any) -> Any:
        mean, var = X.mean(1, keepdims=True), X.var(1, keepdims=True)
        return (X - mean) * jax.lax.rsqrt(var + EPS) * gamma + beta

    def step(X: Any, gamma: Any, beta: Any, dY: Any) -> Any:
        Y, pull = jax.vjp(layer, X, gamma, beta)
        return Y, pull(dY)

    compiled = jax.jit(step)
    return Call(lambda: compiled(X, gamma, beta, dY), jax.block_until_ready)


CONTENDERS = {
    "fastdl": fastdl,
    "numpy": numpy,
    "torch": torch,
    "torch_compile": torch_compile,
    "jax": jax,
}
