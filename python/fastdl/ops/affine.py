"""Y = act(X W + b)."""

from __future__ import annotations

from math import prod

from fastdl import _core
from fastdl._array import Array, describe, empty
from fastdl.ops._call import array_of, output, result, wants_grad
from fastdl.tape import Node, Pass
from fastdl.tensor import ArrayLike, Tensor


def affine(
    X: ArrayLike,
    W: ArrayLike,
    b: ArrayLike | None = None,
    activation: str | None = None,
    *,
    precision: str | None = None,
    out: ArrayLike | None = None,
) -> ArrayLike:
    """Return ``act(X W + b)``; bias and activation ride along in one pass.

    Parameters
    ----------
    X : (..., n) float32 or float64
    W : (n, m) of the same dtype
    b : (m,) of the same dtype, optional
    activation : None, "relu" or "tanh"
    precision : None or "bf16"
        What X and W are rounded to for the product, float32 arrays only; sums and results stay
        float32.  Many times as fast where the CPU has AMX, elsewhere a third slower than None.
    out : (..., m), optional
        Receives the result; only where no gradient is recorded.

    Returns
    -------
    Y : (..., m), an ndarray if all arguments are, else a Tensor

    Raises
    ------
    ValueError
        If shapes do not fit, ``activation`` or ``precision`` is unknown, or ``precision`` is given
        for float64.
    TypeError
        If dtypes differ or are no float types.

    Notes
    -----
    Every element is one chain of fused multiply-adds over rising k, so its bits do not depend on
    batch size or threads.  Source: Goodfellow, Bengio, Courville, "Deep Learning", 2016, ch. 6.
    """
    x, w = array_of("affine", "X", X), array_of("affine", "W", W)
    bias = None if b is None else array_of("affine", "b", b)
    act, prec = activation or "none", precision or "full"
    x2, shape = _rows(x, w)
    inputs = X, W, b
    y = empty(x, shape, x.dtype) if out is None else output("affine", out, x, shape, inputs)
    y2 = y if y.ndim == 2 else y.reshape(x2.shape[0], shape[-1])
    _core.affine_forward(x2, w, bias, y2, act, prec)
    if out is not None:
        return out
    if not (isinstance(X, Tensor) or isinstance(W, Tensor) or isinstance(b, Tensor)):
        return y
    wanted = (wants_grad(X), wants_grad(W), wants_grad(b))
    return result(y, wanted, _backward, (x2, w, None if act == "none" else y2, prec), act)


def affine_backward(
    dY: Array,
    X: Array,
    W: Array,
    Y: Array | None = None,
    activation: str | None = None,
    *,
    precision: str | None = None,
) -> tuple[Array, Array, Array]:
    """Return ``(dX, dW, db)`` for arrays: dZ = dY act'(Z), dX = dZ W^T, dW = X^T dZ, db = sum dZ.

    Parameters
    ----------
    dY : (..., m)
    X : (..., n)
    W : (n, m)
    Y : (..., m), the result of the forward pass
        Needed if there is an activation.
    activation : None, "relu" or "tanh"
    precision : None or "bf16"
        What dZ, X and W are rounded to for the products.

    Returns
    -------
    dX (..., n), dW (n, m), db (m,)

    Raises
    ------
    ValueError, TypeError
        As `affine`.
    """
    op = "affine_backward"
    x, w, dy = array_of(op, "X", X), array_of(op, "W", W), array_of(op, "dY", dY)
    y = None if Y is None else array_of(op, "Y", Y)
    x2, shape = _rows(x, w, op)
    rows = x2.shape[0], shape[-1]
    for name, a in (("dY", dy), ("Y", y)):
        if a is not None and a.shape != shape:
            raise ValueError(f"{op}: {name} must have shape {shape}, got {describe(a)}")
    dX, dW = empty(x, x.shape, x.dtype), empty(w, w.shape, w.dtype)
    db = empty(w, w.shape[1], w.dtype)
    y2 = None if y is None else y.reshape(rows)
    _core.affine_backward(
        dy.reshape(rows),
        x2,
        w,
        y2,
        dX.reshape(x2.shape),
        dW,
        db,
        activation or "none",
        precision=precision or "full",
    )
    return dX, dW, db


def _rows(x: Array, w: Array, op: str = "affine") -> tuple[Array, tuple[int, ...]]:
    """Return ``x`` as a matrix and the shape of the result."""
    if w.ndim != 2:
        raise ValueError(f"{op}: W must be (n, m), got {describe(w)}")
    if x.ndim == 2:
        return x, (x.shape[0], w.shape[1])
    if x.ndim == 0:
        raise ValueError(f"{op}: X must be (..., n) with n = {w.shape[0]} (from W), got 0-d")
    lead = x.shape[:-1]
    return x.reshape(prod(lead), x.shape[-1]), (*lead, w.shape[1])


def _backward(p: Pass, node: Node, dY: Array) -> None:
    X, W, b = node.inputs
    x, w, y, prec = node.saved
    dW, db, accumulate = p.pair(W, b)
    dX = None if X is None else p.place(X)
    dx = None if dX is None else dX if dX.ndim == 2 else dX.reshape(x.shape)
    dy = dY if dY.ndim == 2 else dY.reshape(x.shape[0], w.shape[1])
    act = node.activation if p.must_differentiate(node) else "none"
    below = "none" if X is None else p.take_derivative(X)
    _core.affine_backward(dy, x, w, y, dx, dW, db, act, accumulate, below, prec)
    for t, d in ((X, dX), (W, dW), (b, db)):
        if t is not None and d is not None:
            p.add(t, d)
