"""Random zeros, without a stored mask."""

from __future__ import annotations

from fastdl import _core
from fastdl._array import Array, empty
from fastdl.ops._call import array_of, output, result, wants_grad
from fastdl.ops.relu import relu
from fastdl.random import Generator, default_generator
from fastdl.tape import Node, Pass
from fastdl.tensor import ArrayLike, Tensor


def dropout(
    X: ArrayLike,
    p: float = 0.5,
    training: bool = True,
    *,
    activation: str | None = None,
    generator: Generator | None = None,
    out: ArrayLike | None = None,
) -> ArrayLike:
    """Return ``X`` with every element zeroed with probability ``p``, the others times 1/(1-p).

    Parameters
    ----------
    X : float32 or float64, any shape
    p : float, 0 <= p <= 1
    training : bool
        If False, or if p is 0, ``X`` itself is returned (``relu(X)`` with an activation).
    activation : None or "relu"
        Applied to ``X`` first, in the same pass; the backward pass then reads its mask from the
        result and makes no random numbers.
    generator : Generator, optional
        Advanced by one draw; by default the one of `fastdl.manual_seed`.
    out : of the same shape and dtype, optional
        Receives the result and may be ``X`` itself; only where no gradient is recorded.

    Returns
    -------
    Y : like X, an ndarray if X is one, else a Tensor

    Raises
    ------
    ValueError
        If ``p`` is not in [0, 1] or ``activation`` is unknown.
    TypeError
        If ``X`` is not of a float dtype.

    Notes
    -----
    The mask is a function of seed, draw and element index; the backward pass computes it again.
    Source: Srivastava et al., "Dropout", 2014; Salmon et al., Philox4x32-10, 2011.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must be 0 <= p <= 1, got {p}")
    if activation not in (None, "relu"):
        raise ValueError(f"dropout: activation must be None or 'relu', got {activation!r}")
    x = array_of("dropout", "X", X)
    if not training or p == 0:
        if activation == "relu":
            return relu(X, out=out)
        return X if out is None else _copied(X, x, out)
    y = output("dropout", out, x, x.shape, (X,))
    state = (default_generator if generator is None else generator).state_beside(x)
    saved = empty(x, 2, state.dtype)
    _core.dropout_forward(x, state, y, saved, p, activation or "none")
    if out is not None:
        return out
    if not isinstance(X, Tensor):
        return y
    kept = y if _follows_relu(X, activation) else None
    kept = y if _follows_relu(X, activation) else None
    return result(y, (wants_grad(X),), _backward, (saved, kept, p, activation))


def dropout_backward(
    dY: Array,
    saved: Array | None,
    p: float = 0.5,
    *,
    activation: str | None = None,
    Y: Array | None = None,
    out: Array | None = None,
) -> Array:
    """Return dX: ``dY`` through the mask that the forward pass drew, for arrays.

    Parameters
    ----------
    dY : float32 or float64, any shape
    saved : int64 (2,)
        The generator's ``get_state()`` before the forward pass; may be None with an activation.
    p : float
    activation : None or "relu"
        That of the forward pass.
    Y : like dY, the result of the forward pass
        Needed if there is an activation.
    out : of the same shape and dtype, optional
        Receives the result and may be ``dY`` itself.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit.
    """
    dy = array_of("dropout_backward", "dY", dY)
    dX = output("dropout_backward", out, dy, dy.shape)
    state = None if saved is None else array_of("dropout_backward", "saved", saved)
    y = None if Y is None else array_of("dropout_backward", "Y", Y)
    _core.dropout_backward(dy, state, y, dX, p, activation or "none")
    return dX


def _copied(X: ArrayLike, x: Array, out: ArrayLike) -> ArrayLike:
    y = output("dropout", out, x, x.shape, (X,))
    if y is not x:
        _core.copy(x, y)
    return out


def _follows_relu(X: Tensor, activation: str | None) -> bool:
    """Whether the mask can be read from the result, as far as it is positive."""
    return activation == "relu" or (X._node is not None and X._node.activation == "relu")


def _backward(grads: Pass, node: Node, dY: Array) -> None:
    (X,) = node.inputs
    assert X is not None
    saved, y, p, activation = node.saved
    # The mask of relu below may come along, unless gradients of others are added to this one first.
    if y is not None and X._node is not None and X._node.activation == "relu":
        activation = activation or grads.take_derivative(X)
    dX = grads.place(X)
    if activation == "relu":
        _core.dropout_backward(dY, None, y, dX, p, activation)
    else:
        _core.dropout_backward(dY, saved, None, dX, p)
    grads.add(X, dX)
