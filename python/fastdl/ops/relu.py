"""Y = max(X, 0)."""

from __future__ import annotations

from fastdl._array import Array
from fastdl.ops._activation import Activation
from fastdl.tensor import ArrayLike

_activation = Activation("relu")


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
    return _activation.apply(X, out)


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
    return _activation.derivative(dY, Y, out)
