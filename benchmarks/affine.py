"""Affine with ReLU: forward, forward with all gradients (dX, dW, db); its products alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.workload import Array, Call, Case

TRAFFIC = "copy"

SHAPES = [
    (1, 64, 64), (64, 64, 2), (32, 64, 64), (256, 256, 6), (256, 64, 64), (64, 256, 256),
    (128, 784, 512), (256, 1024, 1024), (1024, 1024, 1024), (512, 4096, 4096),
]  # fmt: skip
QUICK = {(32, 64, 64), (128, 784, 512)}
PRODUCTS = ("X W", "dY W^T", "X^T dY")
PRODUCT_SHAPES = [
    (32, 64, 64), (64, 256, 256), (128, 784, 512), (256, 1024, 1024), (1024, 1024, 1024),
]  # fmt: skip


def _case(what: str, B: int, n: int, m: int, dtype: str = "float32") -> Case:
    size = {"B": B, "n": n, "m": m, "full": what == "full", "product": what in PRODUCTS}
    name = f"{what} {B}x{n}x{m}" + (" f64" if dtype == "float64" else "")
    megabytes = 8 * (n * m + B * n + B * m) / 1e6
    cold = 2.0 * B * n * m < 1e8 and what not in PRODUCTS
    return Case(name, size, (B, n, m) in QUICK and not name.endswith("f64"), cold, megabytes, dtype)


CASES = [
    *(_case("forward", *shape) for shape in SHAPES),
    *(_case("full", *shape) for shape in SHAPES),
    *(_case(what, *shape) for shape in PRODUCT_SHAPES for what in PRODUCTS),
    *(_case(what, 256, 1024, 1024, "float64") for what in ("forward", "full", *PRODUCTS)),
]


def _arrays(case: Case) -> tuple[Array, Array, Array, Array]:
    rng, B, n, m = case.rng(), case["B"], case["n"], case["m"]
    X, W, b = case.normal(rng, B, n), case.normal(rng, n, m), case.normal(rng, m)
    return X, W, b, case.normal(rng, B, m)


def _product(case: Case, calls: Sequence[Callable[[], object]]) -> Call:
    """The one of `calls`, in the order of PRODUCTS, that the case names."""
    return Call(
        next(c for c, name in zip(calls, PRODUCTS, strict=True) if case.name.startswith(name))
    )


def kernel_product(case: Case, precision: str = "full") -> Call:
    """A product by itself, into a given output."""
    from fastdl import _core

    X, W, _, dY = _arrays(case)
    Y, dX, dW = (np.empty_like(a) for a in (dY, X, W))
    return _product(
        case,
        (
            lambda: _core.affine_forward(X, W, None, Y, precision=precision),
            lambda: _core.affine_backward(dY, X, W, None, dX, None, None, precision=precision),
            lambda: _core.affine_backward(dY, X, W, None, None, dW, None, precision=precision),
        ),
    )


def fastdl(case: Case) -> Call:
    """The kernels from Python, outputs given: what the tape calls."""
    if case["product"]:
        return kernel_product(case)
    from fastdl import _core

    X, W, b, dY = _arrays(case)
    Y, dX, dW, db = (np.empty_like(a) for a in (dY, X, W, b))

    def forward() -> None:
        _core.affine_forward(X, W, b, Y, "relu")

    def full() -> None:
        _core.affine_forward(X, W, b, Y, "relu")
        _core.affine_backward(dY, X, W, Y, dX, dW, db, "relu")

    return Call(full if case["full"] else forward)


def fastdl_ops(case: Case) -> Call | None:
    """The public functions on arrays; each returns new arrays."""
    if case["product"]:
        return None
    import fastdl as fd

    X, W, b, dY = _arrays(case)

    def forward() -> Any:
        return fd.ops.affine(X, W, b, "relu")

    def full() -> Any:
        Y = fd.ops.affine(X, W, b, "relu")
        return fd.ops.affine_backward(dY, X, W, Y, "relu")  # type: ignore[arg-type]

    return Call(full if case["full"] else forward)


def numpy(case: Case) -> Call:
    X, W, b, dY = _arrays(case)
    Y, dZ, dX, dW, db = (np.empty_like(a) for a in (dY, dY, X, W, b))
    if case["product"]:
        return _product(
            case,
            (
                lambda: np.matmul(X, W, out=Y),
                lambda: np.matmul(dY, W.T, out=dX),
                lambda: np.matmul(X.T, dY, out=dW),
            ),
        )

    def forward() -> None:
        np.matmul(X, W, out=Y)
        np.add(Y, b, out=Y)
        np.maximum(Y, 0, out=Y)

    def full() -> None:
        forward()
        np.multiply(dY, Y > 0, out=dZ)
        np.matmul(dZ, W.T, out=dX)
        np.matmul(X.T, dZ, out=dW)
        np.sum(dZ, axis=0, out=db)

    return Call(full if case["full"] else forward)


def _torch_functions(case: Case, compiled: bool) -> Call | None:
    """`linear` and `relu` with autograd; torch's weight is (m, n)."""
    if case["product"]:
        return None
    import torch
    from torch.nn import functional

    X, W, b, dY = (torch.from_numpy(np.ascontiguousarray(a)) for a in _arrays(case))
    weight = W.T.contiguous()

    def layer(X: Any, weight: Any, b: Any) -> Any:
        return functional.relu(functional.linear(X, weight, b))

    apply = torch.compile(layer) if compiled else layer
    inputs = [X, weight, b]

    def forward() -> Any:
        with torch.no_grad():
            return apply(*inputs)

    def full() -> Any:
        return torch.autograd.grad(apply(*inputs), inputs, dY)

    for t in inputs if case["full"] else ():
        t.requires_grad_()
    return Call(full if case["full"] else forward)


def torch(case: Case) -> Call | None:
    return _torch_functions(case, compiled=False)


def torch_compile(case: Case) -> Call | None:
    return _torch_functions(case, compiled=True)


def torch_raw(case: Case) -> Call:
    """The gradients written out, outputs given, no autograd: the least that torch can cost."""
    import torch

    X, W, b, dY = (torch.from_numpy(a) for a in _arrays(case))
    Y, dX, dW, db = (torch.empty_like(a) for a in (dY, X, W, b))
    mask = torch.ops.aten.threshold_backward
    if case["product"]:
        return _product(
            case,
            (
                lambda: torch.mm(X, W, out=Y),
                lambda: torch.mm(dY, W.T, out=dX),
                lambda: torch.mm(X.T, dY, out=dW),
            ),
        )

    def forward() -> None:
        torch.addmm(b, X, W, out=Y).relu_()

    def full() -> None:
        forward()
        dZ = mask(dY, Y, 0)
        torch.mm(dZ, W.T, out=dX)
        torch.mm(X.T, dZ, out=dW)
        torch.sum(dZ, 0, out=db)

    run = full if case["full"] else forward

    def quiet() -> None:
        with torch.inference_mode():
            run()

    return Call(quiet)


def jax(case: Case) -> Call:
    import jax

    jax.config.update("jax_enable_x64", case.dtype == "float64")
    X, W, b, dY = (jax.numpy.asarray(a) for a in _arrays(case))
    if case["product"]:
        first = jax.jit(lambda X, W: X @ W)
        second, third = jax.jit(lambda dY, W: dY @ W.T), jax.jit(lambda X, dY: X.T @ dY)
        calls = (lambda: first(X, W), lambda: second(dY, W), lambda: third(X, dY))
        return Call(_product(case, calls).run, jax.block_until_ready)

    def layer(X: Any, W: Any, b: Any) -> Any:
        return jax.nn.relu(X @ W + b)

    def gradients(X: Any, W: Any, b: Any, dY: Any) -> Any:
        Y, pull = jax.vjp(layer, X, W, b)
        return Y, pull(dY)

    forward, full = jax.jit(layer), jax.jit(gradients)
    run = (lambda: full(X, W, b, dY)) if case["full"] else (lambda: forward(X, W, b))
    return Call(run, jax.block_until_ready)


CONTENDERS = {
    "fastdl": fastdl,
    "fastdl/ops": fastdl_ops,
    "numpy": numpy,
    "torch": torch,
    "torch/raw": torch_raw,
    "torch_compile": torch_compile,
    "jax": jax,
}
