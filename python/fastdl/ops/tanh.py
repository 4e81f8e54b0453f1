"""Y = tanh(X)."""

from __future__ import annotations

from fastdl._array import Array
from fastdl.ops._activation import Activation
from fastdl.tensor import ArrayLike

_activation = Activation("tanh")


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
    return _activation.apply(X, out)


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
    return _activation.derivative(dY, Y, out)
