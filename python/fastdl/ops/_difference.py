"""Losses that are a function of X - target: the kernel writes loss and gradient in one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastdl import _core
from fastdl._array import Array, describe, empty
from fastdl.ops._call import array_of, is_one, result, wants_grad
from fastdl.tape import Node, Pass, mode
from fastdl.tensor import ArrayLike, Tensor

Kernel = Callable[..., None]


def difference_loss(
    op: str, kernel: Kernel, X: ArrayLike, target: ArrayLike, **options: Any
) -> ArrayLike:
    """Return the loss, on the tape if an argument is a Tensor that wants a gradient."""
    x, t = array_of(op, "X", X), array_of(op, "target", target)
    wanted = (wants_grad(X), wants_grad(target)) if mode.enabled else (None, None)
    dX, dT = (None if w is None else empty(x, x.shape, x.dtype) for w in wanted)
    y = _run(kernel, x, t, dX, options)
    if dT is not None:
        _run(kernel, t, x, dT, options)
    if not (isinstance(X, Tensor) or isinstance(target, Tensor)):
        return y
    return result(y, wanted, _backward, (dX, dT))


def difference_loss_backward(
    op: str, kernel: Kernel, dY: Array | None, X: Array, target: Array, **options: Any
) -> Array:
    """Return the gradient with respect to ``X``, for arrays."""
    x, t = array_of(op, "X", X), array_of(op, "target", target)
    dX = empty(x, x.shape, x.dtype)
    y = _run(kernel, x, t, dX, options)
    if dY is None:
        return dX
    dy = array_of(op, "dY", dY)
    if dy.shape != y.shape:
        raise ValueError(f"{op}: dY must have shape {y.shape}, got {describe(dy)}")
    return _scaled(dX, dy)


def _run(kernel: Kernel, x: Array, t: Array, dX: Array | None, options: dict[str, Any]) -> Array:
    rows = options["reduction"] == "none"
    y = empty(x, x.shape if rows else (), x.dtype)
    total, loss = (None, y) if rows else (y, None)
    kernel(x, t, total=total, dX=dX, loss=loss, **options)
    return y


def _scaled(dX: Array, dY: Array) -> Array:
    """DX times dY: element by element, or by one number."""
    scaled = empty(dX, dX.shape, dX.dtype)
    rows = (dX.size, 1) if dY.size == dX.size else (1, dX.size)
    _core.scale_rows(dX.reshape(rows), dY.reshape(dY.size), scaled.reshape(rows))
    return scaled


def _backward(p: Pass, node: Node, dY: Array) -> None:
    for t, d in zip(node.inputs, node.saved, strict=True):
        if t is not None:
            p.add(t, d if is_one(dY) else _scaled(d, dY), owned=False)
