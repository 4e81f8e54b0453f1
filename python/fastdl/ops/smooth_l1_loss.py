"""Error that is squared where it is small and absolute where it is large."""

from __future__ import annotations

from fastdl import _core
from fastdl._array import Array
from fastdl.ops._difference import difference_loss, difference_loss_backward
from fastdl.tensor import ArrayLike


def smooth_l1_loss(
    X: ArrayLike, target: ArrayLike, *, reduction: str = "mean", beta: float = 1.0
) -> ArrayLike:
    """Return the mean (sum, or all) of ``d**2 / (2 beta)`` where |d| < beta, else |d| - beta / 2.

    Parameters
    ----------
    X, target : float32 or float64, of one shape and dtype (nothing is broadcast)
        d is ``X - target``.
    reduction : "mean", "sum" or "none"
    beta : float, beta >= 0
        Where the two branches meet; 0 gives the absolute error.

    Returns
    -------
    loss : 0-d, or for "none" like X; an ndarray if both arguments are, else a Tensor

    Raises
    ------
    ValueError
        If shapes differ, ``reduction`` is unknown, or ``beta`` is negative.
    TypeError
        If dtypes differ or are no float types.

    Notes
    -----
    The forward pass writes the gradient where one is wanted.  Source: Girshick, "Fast R-CNN", 2015,
    eq. 3.
    """
    kernel = _core.smooth_l1_loss_forward
    return difference_loss("smooth_l1_loss", kernel, X, target, reduction=reduction, beta=beta)


def smooth_l1_loss_backward(
    dY: Array | None, X: Array, target: Array, reduction: str = "mean", beta: float = 1.0
) -> Array:
    """Return the gradient of `smooth_l1_loss` with respect to ``X``, for arrays.

    Parameters
    ----------
    dY : of the loss's shape, or None for 1
    X, target, reduction, beta
        As for `smooth_l1_loss`.

    Raises
    ------
    ValueError, TypeError
        As `smooth_l1_loss`.
    """
    kernel = _core.smooth_l1_loss_forward
    return difference_loss_backward(
        "smooth_l1_loss_backward", kernel, dY, X, target, reduction=reduction, beta=beta
    )
