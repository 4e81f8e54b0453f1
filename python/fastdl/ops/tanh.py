"""Y = tanh(X)."""

from __future__ import annotations

import numpy as np

from fastdl import _core
from fastdl._array import Array
from fastdl.ops._call import array_of, output, result, wants_grad
from fastdl.tape import Node, Pass
from fastdl.tensor import ArrayLike, Tensor


def tanh(X: ArrayLike, *, out: ArrayLike | None = None) -> ArrayLike:
    """Return ``tanh(X)``, element by element; NaN stays NaN.

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
    Below 2 ulp.  Source: LeCun, Bottou, Orr, Mueller, "Efficient BackProp", 1998, section 4.4.
    """
    x = array_of("tanh", "X", X)
    y = np.empty(x.shape, x.dtype) if out is None else output("tanh", out, x.shape, x.dtype, (X,))
    _core.tanh_forward(x, y)
    if out is not None:
        return out
    if not isinstance(X, Tensor):
        return y
    return result(y, (wants_grad(X),), _backward, (y,), "tanh")


def tanh_backward(dY: Array, Y: Array, *, out: Array | None = None) -> Array:
    """Return dX = dY (1 - Y^2), for arrays.

    Parameters
    ----------
    dY, Y : float32 or float64, of one shape and dtype
        ``Y`` is the result of the forward pass.
    out : of the same shape and dtype, optional
        Receives the result and may be ``dY`` itself.

    Raises
    ------
    ValueError, TypeError
        If shapes or dtypes differ.
    """
    dy, y = array_of("tanh_backward", "dY", dY), array_of("tanh_backward", "Y", Y)
    dX = output("tanh_backward", out, y.shape, y.dtype)
    _core.tanh_backward(dy, y, dX)
    return dX


def _backward(p: Pass, node: Node, dY: Array) -> None:
    (X,) = node.inputs
    assert X is not None
    if p.must_differentiate(node):
        dX = p.place(X)
        _core.tanh_backward(dY, node.saved[0], dX)
    else:
        dX = dY
    p.add(X, dX)
