"""Y = max(X, 0)."""

from __future__ import annotations

import numpy as np

from fastdl import _core
from fastdl._array import Array
from fastdl.ops._call import array_of, output, result, wants_grad
from fastdl.tape import Node, Pass
from fastdl.tensor import ArrayLike, Tensor


def relu(X: ArrayLike, *, out: ArrayLike | None = None) -> ArrayLike:
    """Return ``max(X, 0)``, element by element; NaN stays NaN.

    Parameters
    ----------
    X : float32 or float64, any shape
    out : of the same shape and dtype, optional
        Receives the result and may be ``X`` itself; only where no gradient is recorded.

    Returns
    -------
    Y : like X, an ndarray if X is one, else a Tensor

    Raises
    ------
    TypeError
        If ``X`` is not of a float dtype.

    Notes
    -----
    The derivative at 0 is 0.  Source: Nair & Hinton, "Rectified linear units improve restricted
    Boltzmann machines", 2010.
    """
    x = array_of("relu", "X", X)
    y = np.empty(x.shape, x.dtype) if out is None else output("relu", out, x.shape, x.dtype, (X,))
    _core.relu_forward(x, y)
    if out is not None:
        return out
    if not isinstance(X, Tensor):
        return y
    return result(y, (wants_grad(X),), _backward, (y,), "relu")


def relu_backward(dY: Array, Y: Array, *, out: Array | None = None) -> Array:
    """Return dX = dY where Y > 0, else 0, for arrays.

    Parameters
    ----------
    dY, Y : float32 or float64, of one shape and dtype
        ``Y`` is the result of the forward pass (``X`` serves as well).
    out : of the same shape and dtype, optional
        Receives the result and may be ``dY`` itself.

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes differ.
    """
    dy, y = array_of("relu_backward", "dY", dY), array_of("relu_backward", "Y", Y)
    dX = output("relu_backward", out, y.shape, y.dtype)
    _core.relu_backward(dy, y, dX)
    return dX


def _backward(p: Pass, node: Node, dY: Array) -> None:
    (X,) = node.inputs
    assert X is not None
    if p.must_differentiate(node):
        dX = p.place(X)
        _core.relu_backward(dY, node.saved[0], dX)
    else:
        dX = dY
    p.add(X, dX)
