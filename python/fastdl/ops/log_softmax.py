"""Logarithm of the softmax."""

from __future__ import annotations

from math import prod

import numpy as np

from fastdl import _core
from fastdl._array import Array, contiguous, copy, describe, empty
from fastdl.ops._call import array_of, result, wants_grad
from fastdl.ops._shapes import Shape, checked_dim
from fastdl.tape import Node, Pass
from fastdl.tensor import ArrayLike, Tensor


def log_softmax(X: ArrayLike, dim: int = -1) -> ArrayLike:
    """Return ``X - log(sum(exp(X)))``, the logarithm of the softmax over ``dim``.

    Parameters
    ----------
    X : float32 or float64, any shape but 0-d
    dim : int
        The dimension whose exponentials sum to 1; the last one needs no copies.

    Returns
    -------
    Y : like X, an ndarray if X is one, else a Tensor

    Raises
    ------
    ValueError
        If ``X`` is 0-d or ``dim`` is out of range.
    TypeError
        If ``X`` is not of a float dtype.

    Notes
    -----
    The maximum is subtracted first, so nothing overflows; -inf masks an element, and a row of
    nothing else is NaN.  Source: Bridle, "Probabilistic interpretation of feedforward
    classification network outputs", 1990.
    """
    x = array_of("log_softmax", "X", X)
    axis = _axis("log_softmax", x, dim)
    rows = _as_rows(x, axis)
    y = empty(x, rows.shape, x.dtype)
    _core.log_softmax_forward(rows, y)
    Y = _from_rows(y, x.shape, axis)
    if not isinstance(X, Tensor):
        return Y
    return result(Y, (wants_grad(X),), _backward, (y, axis))


def log_softmax_backward(dY: Array, Y: Array, dim: int = -1) -> Array:
    """Return dX = dY - exp(Y) sum(dY) over ``dim``, for arrays.

    Parameters
    ----------
    dY, Y : float32 or float64, of one shape and dtype
        ``Y`` is the result of the forward pass.
    dim : int
        As for `log_softmax`.

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes differ.
    """
    op = "log_softmax_backward"
    dy, y = array_of(op, "dY", dY), array_of(op, "Y", Y)
    if dy.shape != y.shape:
        raise ValueError(f"{op}: dY must have the shape of Y, {describe(y)}, got {describe(dy)}")
    axis = _axis(op, y, dim)
    rows = _as_rows(y, axis)
    dX = empty(rows, rows.shape, rows.dtype)
    _core.log_softmax_backward(_as_rows(dy, axis), rows, dX)
    return _from_rows(dX, y.shape, axis)


def _axis(op: str, x: Array, dim: int) -> int:
    if x.ndim == 0:
        raise ValueError(f"{op}: X must have a dimension, got {describe(x)}")
    return checked_dim(op, dim, x.ndim)


def _as_rows(x: Array, axis: int) -> Array:
    """(..., C, ...) as (rows, C)."""
    moved = x if axis == x.ndim - 1 else contiguous(np.moveaxis(x, axis, -1))
    return moved.reshape(prod(moved.shape[:-1]), moved.shape[-1])


def _from_rows(rows: Array, shape: Shape, axis: int) -> Array:
    """(rows, C) as (..., C, ...)."""
    if axis == len(shape) - 1:
        return rows.reshape(shape)
    moved = rows.reshape(*shape[:axis], *shape[axis + 1 :], shape[axis])
    return copy(np.moveaxis(moved, -1, axis))


def _backward(p: Pass, node: Node, dY: Array) -> None:
    (X,) = node.inputs
    assert X is not None
    y, axis = node.saved
    if axis == dY.ndim - 1:
        dX = p.place(X)
        _core.log_softmax_backward(dY.reshape(y.shape), y, dX.reshape(y.shape))
    else:
        rows = empty(y, y.shape, y.dtype)
        _core.log_softmax_backward(_as_rows(dY, axis), y, rows)
        dX = _from_rows(rows, X.shape, axis)
    p.add(X, dX)
