"""Squared error."""

from __future__ import annotations

import numpy as np

from fastdl import _core
from fastdl._array import Array, describe
from fastdl.ops._call import array_of, is_one, result, wants_grad
from fastdl.tape import Node, Pass, mode
from fastdl.tensor import ArrayLike, Tensor


def mse_loss(X: ArrayLike, target: ArrayLike, *, reduction: str = "mean") -> ArrayLike:
    """Return the mean (sum, or all) of ``(X - target)**2``.

    Parameters
    ----------
    X, target : float32 or float64, of one shape and dtype (nothing is broadcast)
    reduction : "mean", "sum" or "none"

    Returns
    -------
    loss : 0-d, or for "none" like X; an ndarray if both arguments are, else a Tensor

    Raises
    ------
    ValueError
        If shapes differ or ``reduction`` is unknown.
    TypeError
        If dtypes differ or are no float types.

    Notes
    -----
    The forward pass writes the gradient where one is wanted.  Source: Legendre, "Nouvelles methodes
    pour la determination des orbites des cometes", 1805.
    """
    x, t = array_of("mse_loss", "X", X), array_of("mse_loss", "target", target)
    wanted = (wants_grad(X), wants_grad(target)) if mode.enabled else (None, None)
    dX, dT = (None if w is None else np.empty_like(x) for w in wanted)
    y = _run(x, t, dX, reduction)
    if dT is not None:
        _run(t, x, dT, reduction)
    if not (isinstance(X, Tensor) or isinstance(target, Tensor)):
        return y
    return result(y, wanted, _backward, (dX, dT))


def mse_loss_backward(dY: Array | None, X: Array, target: Array, reduction: str = "mean") -> Array:
    """Return the gradient of `mse_loss` with respect to ``X``, for arrays.

    Parameters
    ----------
    dY : of the loss's shape, or None for 1
    X, target, reduction
        As for `mse_loss`.

    Raises
    ------
    ValueError, TypeError
        As `mse_loss`.
    """
    op = "mse_loss_backward"
    x, t = array_of(op, "X", X), array_of(op, "target", target)
    dX = np.empty_like(x)
    y = _run(x, t, dX, reduction)
    if dY is None:
        return dX
    dy = array_of(op, "dY", dY)
    if dy.shape != y.shape:
        raise ValueError(f"{op}: dY must have shape {y.shape}, got {describe(dy)}")
    return _scaled(dX, dy)


def _run(x: Array, t: Array, dX: Array | None, reduction: str) -> Array:
    rows = reduction == "none"
    y = np.empty(x.shape if rows else (), x.dtype)
    total, loss = (None, y) if rows else (y, None)
    _core.mse_loss_forward(x, t, total=total, dX=dX, loss=loss, reduction=reduction)
    return y


def _scaled(dX: Array, dY: Array) -> Array:
    """DX times dY: element by element, or by one number."""
    scaled = np.empty_like(dX)
    rows = (dX.size, 1) if dY.size == dX.size else (1, dX.size)
    _core.scale_rows(dX.reshape(rows), dY.reshape(dY.size), scaled.reshape(rows))
    return scaled


def _backward(p: Pass, node: Node, dY: Array) -> None:
    for t, d in zip(node.inputs, node.saved, strict=True):
        if t is not None:
            p.add(t, d if is_one(dY) else _scaled(d, dY), owned=False)
