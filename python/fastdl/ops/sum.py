"""Sums and means over dimensions."""

from __future__ import annotations

from math import prod

import numpy as np

from fastdl import _core
from fastdl._array import Array, placed
from fastdl.ops._call import array_of, result, wants_grad
from fastdl.ops._shapes import Dim, checked_dims, expanded, kept, removed, total
from fastdl.tape import Node, Pass, constant
from fastdl.tensor import ArrayLike, Tensor


def sum(X: ArrayLike, dim: Dim = None, keepdim: bool = False) -> ArrayLike:  # noqa: A001
    """Return the sum of the elements of ``X`` over ``dim``.

    Parameters
    ----------
    X : float32 or float64, any shape
    dim : int or tuple of int, optional
        The dimensions to sum over, negative ones from the last; by default all.
    keepdim : bool
        Whether they stay, with size 1.

    Returns
    -------
    Y : an ndarray if X is one, else a Tensor; 0-d for all dimensions

    Raises
    ------
    ValueError
        If a dimension is out of range or given twice.
    TypeError
        If ``X`` is not of a float dtype.

    Notes
    -----
    Chains of 16 terms are joined in float64 in an order that depends on the shape alone; the sum of
    no element is 0.  Source: Higham, "The accuracy of floating point summation", 1993.
    """
    return _reduced("sum", X, dim, keepdim, mean=False)


def mean(X: ArrayLike, dim: Dim = None, keepdim: bool = False) -> ArrayLike:
    """Return the mean of the elements of ``X`` over ``dim``.

    Parameters
    ----------
    X, dim, keepdim
        As for `sum`.

    Returns
    -------
    Y : an ndarray if X is one, else a Tensor; 0-d for all dimensions

    Raises
    ------
    ValueError, TypeError
        As `sum`.

    Notes
    -----
    The sum is divided before it is rounded; the mean of no element is NaN.  Source: as `sum`.
    """
    return _reduced("mean", X, dim, keepdim, mean=True)


def _reduced(op: str, X: ArrayLike, dim: Dim, keepdim: bool, mean: bool) -> ArrayLike:
    x = array_of(op, "X", X)
    dims = checked_dims(op, dim, x.ndim)
    shape = kept(x.shape, dims)
    count = prod([x.shape[d] for d in dims]) if mean else 1
    y = total(x, dims, count).reshape(shape if keepdim else removed(x.shape, dims))
    if not isinstance(X, Tensor):
        return y
    return result(y, (wants_grad(X),), _backward, (shape, count))


def _backward(p: Pass, node: Node, dY: Array) -> None:
    (X,) = node.inputs
    assert X is not None
    shape, count = node.saved
    dX = p.place(X)
    share = constant(placed(np.array(1 / max(count, 1), dY.dtype), dY))
    _core.mul_forward(expanded(dY.reshape(shape), X.shape), expanded(share, X.shape), dX)
    p.add(X, dX)
