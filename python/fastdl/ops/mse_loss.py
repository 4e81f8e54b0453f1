"""Squared error."""

from __future__ import annotations

from fastdl import _core
from fastdl._array import Array
from fastdl.ops._difference import difference_loss, difference_loss_backward
from fastdl.tensor import ArrayLike


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
    return difference_loss("mse_loss", _core.mse_loss_forward, X, target, reduction=reduction)


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
    kernel = _core.mse_loss_forward
    return difference_loss_backward("mse_loss_backward", kernel, dY, X, target, reduction=reduction)
