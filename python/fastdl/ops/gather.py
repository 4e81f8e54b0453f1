"""Elements picked along one dimension."""

from __future__ import annotations

from math import prod

from fastdl import _core
from fastdl._array import Array, describe, empty
from fastdl.ops._call import array_of, result, wants_grad
from fastdl.ops._shapes import checked_dim, removed
from fastdl.tape import Node, Pass
from fastdl.tensor import ArrayLike, Tensor


def gather(X: ArrayLike, dim: int, index: ArrayLike) -> ArrayLike:
    """Return the elements of ``X`` that ``index`` picks along ``dim``, as torch does.

    ``Y[i, j] = X[i, index[i, j]]`` for a matrix and ``dim=1``.

    Parameters
    ----------
    X : float32 or float64, any shape but 0-d
    dim : int
    index : int32 or int64
        Of X's shape but for any size along ``dim``; or of X's shape without ``dim``: then one
        element is picked for each place, as the value of an action in each row (torch wants
        ``index[:, None]`` for that).

    Returns
    -------
    Y : of index's shape and X's dtype; an ndarray if both arguments are, else a Tensor

    Raises
    ------
    ValueError
        If shapes do not fit, or an index is negative or too large: it is checked before anything is
        written, in a replay too.
    TypeError
        If ``X`` is not of a float dtype or ``index`` not of an integer one.

    Notes
    -----
    The gradients of an element that was picked several times are added in the order of ``index``.
    Source: torch.gather.
    """
    x, i = array_of("gather", "X", X), array_of("gather", "index", index)
    axis = checked_dim("gather", dim, x.ndim)
    rest = removed(x.shape, (axis,))
    single = i.shape == rest
    if x.ndim == 0 or not (single or (i.ndim == x.ndim and removed(i.shape, (axis,)) == rest)):
        raise ValueError(
            f"gather: index must have the shape of X, {describe(x)}, with any size along dim {dim} "
            f"or without it, got {describe(i)}"
        )
    n, m = prod(x.shape[:axis]), prod(x.shape[axis + 1 :])
    picks = i.reshape(n, 1 if single else i.shape[axis], m)
    y = empty(x, i.shape, x.dtype)
    _core.gather_forward(x.reshape(n, x.shape[axis], m), picks, y.reshape(picks.shape))
    if not (isinstance(X, Tensor) or isinstance(index, Tensor)):
        return y
    return result(y, (wants_grad(X),), _backward, (picks, x.shape[axis]))


def _backward(p: Pass, node: Node, dY: Array) -> None:
    (X,) = node.inputs
    assert X is not None
    picks, R = node.saved
    n, _, m = picks.shape
    dX = p.place(X)
    _core.gather_backward(dY.reshape(picks.shape), picks, dX.reshape(n, R, m))
    p.add(X, dX)
