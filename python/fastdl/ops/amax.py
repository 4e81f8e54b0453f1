"""Maxima over dimensions."""

from __future__ import annotations

from fastdl import _core
from fastdl._array import Array, empty
from fastdl.ops._call import array_of, result, wants_grad
from fastdl.ops._shapes import Dim, checked_dims, kept, removed, runs
from fastdl.tape import Node, Pass
from fastdl.tensor import ArrayLike, Tensor


def amax(X: ArrayLike, dim: Dim = None, keepdim: bool = False) -> ArrayLike:
    """Return the largest element of ``X`` over ``dim``; NaN if one is NaN.

    Parameters
    ----------
    X : float32 or float64, any shape
    dim : int or tuple of int, optional
        Neighbouring dimensions, negative ones from the last; by default all.
    keepdim : bool
        Whether they stay, with size 1.

    Returns
    -------
    Y : an ndarray if X is one, else a Tensor; 0-d for all dimensions

    Raises
    ------
    ValueError
        If a dimension is out of range or given twice, the dimensions are no neighbours, or there is
        no element to choose from.
    TypeError
        If ``X`` is not of a float dtype.

    Notes
    -----
    Equal maxima share the gradient in equal parts.  Source: torch.amax.
    """
    x = array_of("amax", "X", X)
    dims = checked_dims("amax", dim, x.ndim)
    groups = runs(x.shape, dims)
    if len(groups) > 1:
        raise ValueError(f"amax: dim must name neighbouring dimensions, got {dim}; call it twice")
    n, r, m = groups[0]
    y = empty(x, (n, m), x.dtype)
    _core.amax_forward(x.reshape(n, r, m), y)
    Y = y.reshape(kept(x.shape, dims) if keepdim else removed(x.shape, dims))
    if not isinstance(X, Tensor):
        return Y
    return result(Y, (wants_grad(X),), _backward, (x.reshape(n, r, m), y))


def _backward(p: Pass, node: Node, dY: Array) -> None:
    (X,) = node.inputs
    assert X is not None
    x, y = node.saved
    dX = p.place(X)
    _core.amax_backward(dY.reshape(y.shape), x, y, dX.reshape(x.shape))
    p.add(X, dX)
