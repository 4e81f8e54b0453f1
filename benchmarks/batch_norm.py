"""Batch norm in training: forward, then dX, dgamma and dbeta."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.workload import Array, Call, Case

TRAFFIC = "copy"
EPS, MOMENTUM = 1e-5, 0.1

SHAPES = [(128, 256), (1024, 1024), (8192, 1024), (32, 64, 56, 56)]
CASES = [
    Case(
        "x".join(map(str, shape)),
        {"shape": shape},
        quick=shape in SHAPES[:2],
        cold=int(np.prod(shape)) < 1 << 21,
        megabytes=24 * int(np.prod(shape)) / 1e6,
    )
    for shape in SHAPES
]


def _arrays(case: Case) -> tuple[Array, Array, Array, Array]:
    rng, shape = case.rng(), case["shape"]
    X, dY = case.normal(rng, *shape), case.normal(rng, *shape)
    return X, dY, 1 + case.normal(rng, shape[1]), case.normal(rng, shape[1])


def fastdl(case: Case) -> Call:
    """The kernels from Python, outputs given."""
    from fastdl import _core

    X, dY, gamma, beta = _arrays(case)
    N, C = X.shape[:2]
    X, dY = X.reshape(N, C, -1), dY.reshape(N, C, -1)
    Y, dX = (_core.empty(X, X.shape, X.dtype) for _ in range(2))  # as ops make results
    mean, rstd, dgamma, dbeta = (np.empty_like(gamma) for _ in range(4))
    running = np.zeros_like(gamma), np.ones_like(gamma), np.zeros((), np.int64)

    def run() -> None:
        _core.batch_norm_forward(X, gamma, beta, *running, Y, mean, rstd, EPS, MOMENTUM, True)
        _core.batch_norm_backward(dY, X, gamma, None, mean, rstd, dX, dgamma, dbeta)

    return Call(run)


def numpy(case: Case) -> Call:
    X, dY, gamma, beta = _arrays(case)
    axes = (0, *range(2, X.ndim))
    wide = (1, -1) + (1,) * (X.ndim - 2)
    M = X.size // X.shape[1]
    running_mean, running_var = np.zeros_like(gamma), np.ones_like(gamma)
    xhat, Y, dX = np.empty_like(X), np.empty_like(X), np.empty_like(X)

    def run() -> Any:
        mean = X.mean(axis=axes)
        np.subtract(X, mean.reshape(wide), out=xhat)
        var = np.square(xhat, out=Y).mean(axis=axes)
        rstd = 1 / np.sqrt(var + X.dtype.type(EPS))
        np.multiply(xhat, rstd.reshape(wide), out=xhat)
        np.multiply(xhat, gamma.reshape(wide), out=Y)
        np.add(Y, beta.reshape(wide), out=Y)
        running_mean[...] += MOMENTUM * (mean - running_mean)
        running_var[...] += MOMENTUM * (var * (M / (M - 1)) - running_var)
        dbeta = dY.sum(axis=axes)
        dgamma = np.multiply(dY, xhat, out=dX).sum(axis=axes)
        np.multiply(xhat, (-dgamma / M).reshape(wide), out=dX)
        np.add(dX, dY, out=dX)
        np.subtract(dX, (dbeta / M).reshape(wide), out=dX)
        np.multiply(dX, (gamma * rstd).reshape(wide), out=dX)
        return dgamma, dbeta

    return Call(run)


def _torch_function(case: Case, compiled: bool) -> Call:
    import torch
    from torch.nn import functional

    X, dY, gamma, beta = (torch.from_numpy(a) for a in _arrays(case))
    inputs = [a.requires_grad_() for a in (X, gamma, beta)]
    running = torch.zeros_like(beta).detach(), torch.ones_like(beta).detach()

    def layer(X: Any, gamma: Any, beta: Any) -> Any:
        return functional.batch_norm(X, *running, gamma, beta, True, MOMENTUM, EPS)

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
    axes = (0, *range(2, X.ndim))
    wide = (1, -1) + (1,) * (X.ndim - 2)
    M = X.size // X.shape[1]

    def layer(X: Any, gamma: Any, beta: Any) -> Any:
        mean, var = X.mean(axes), X.var(axes)
        factor = gamma * jax.lax.rsqrt(var + EPS)
        Y = (X - mean.reshape(wide)) * factor.reshape(wide) + beta.reshape(wide)
        return Y, (mean, var * (M / (M - 1)))

    def update(running: Any, X: Any, gamma: Any, beta: Any, dY: Any) -> Any:
        Y, pull, batch = jax.vjp(layer, X, gamma, beta, has_aux=True)
        new = [r + MOMENTUM * (s - r) for r, s in zip(running, batch, strict=True)]
        return new, Y, pull(dY)

    step = jax.jit(update)
    running = [jnp.zeros_like(beta), jnp.ones_like(beta)]

    def run() -> Any:
        running[:], *rest = step(running, X, gamma, beta, dY)
        return rest

    return Call(run, jax.block_until_ready)


CONTENDERS = {
    "fastdl": fastdl,
    "numpy": numpy,
    "torch": torch,
    "torch_compile": torch_compile,
    "jax": jax,
}
