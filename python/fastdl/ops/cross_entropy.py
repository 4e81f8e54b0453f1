"""Softmax, logarithm and negative log-likelihood in one pass, with the gradient."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from fastdl import _core
from fastdl._array import Array, compute_dtype, contiguous, copy, describe, empty, is_float
from fastdl.ops._call import array_of, is_one, result, wants_grad
from fastdl.tape import Node, Pass, mode
from fastdl.tensor import ArrayLike, Tensor


def cross_entropy(
    X: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> ArrayLike:
    """Return the cross entropy of the softmax of ``X`` against ``target``, as torch does.

    Parameters
    ----------
    X : (C,), (B, C) or (B, C, d1, ...) float32 or float64, on a device also bfloat16
        Logits.  With bfloat16 all other float arrays are float32, but the gradient of X.
    target : int32 or int64 of X's shape without C, or of X's shape and dtype
        Class labels, or probabilities.
    weight : (C,) of X's dtype, optional
        Weight of each class.
    ignore_index : int
        A label that does not count; the mean of no label at all is NaN.
    reduction : "mean", "sum" or "none"
        The mean is weighted: it divides by the sum of the labels' weights.
    label_smoothing : float, 0 <= label_smoothing <= 1

    Returns
    -------
    loss : 0-d, or for "none" of the labels' shape; an ndarray if all arguments are, else a Tensor

    Raises
    ------
    ValueError
        If shapes do not fit, a label is out of range, or an option is unknown.
    TypeError
        If a dtype does not fit.

    Notes
    -----
    The gradient costs no pass of its own: the forward pass writes it where one is wanted.  The
    largest logit of a row is subtracted first, so nothing overflows.  Source: Bridle,
    "Probabilistic interpretation of feedforward classification network outputs", 1990; label
    smoothing: Szegedy et al., "Rethinking the Inception architecture", 2016.
    """
    options = {
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "reduction": reduction,
    }
    x = array_of("cross_entropy", "X", X)
    call = _Call(x, array_of("cross_entropy", "target", target), weight)
    _refuse_grad(target=target, weight=weight)
    taped = mode.enabled and wants_grad(X) is not None
    dX = empty(x, call.x.shape, x.dtype) if taped else None
    y = call.run(dX, options)
    if not (isinstance(X, Tensor) or isinstance(target, Tensor) or isinstance(weight, Tensor)):
        return y
    return result(y, (wants_grad(X),), _backward, (dX,))


def cross_entropy_backward(
    dY: Array | None, X: Array, target: Array, weight: Array | None = None, **options: Any
) -> Array:
    """Return the gradient of `cross_entropy` with respect to its logits, for arrays.

    Parameters
    ----------
    dY : of the loss's shape, or None for 1
    X, target, weight, **options
        As for `cross_entropy`.

    Returns
    -------
    dX : like X

    Raises
    ------
    ValueError, TypeError
        As `cross_entropy`.
    """
    op = "cross_entropy_backward"
    x = array_of(op, "X", X)
    call = _Call(x, array_of(op, "target", target), weight)
    dX = empty(x, call.x.shape, x.dtype)
    y = call.run(dX, options)
    if dY is not None:
        dy = array_of(op, "dY", dY)
        if dy.shape != y.shape:
            raise ValueError(f"{op}: dY must have shape {y.shape}, got {describe(dy)}")
        _core.scale_rows(dX, dy.reshape(dy.size), dX)
    return _as_logits(dX, x.shape)


class _Call:
    """The arguments as the kernel wants them: one row per label, classes last."""

    def __init__(self, x: Array, target: Array, weight: ArrayLike | None) -> None:
        if x.ndim == 0:
            raise ValueError("cross_entropy: X must be (C,) or (B, C, ...), got 0-d")
        self.shape = x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()
        soft = is_float(target.dtype)
        if target.shape != (x.shape if soft else self.shape):
            raise ValueError(
                f"cross_entropy: target must be labels of shape {self.shape} or probabilities of "
                f"shape {x.shape}, got {describe(target)}"
            )
        self.x = _as_rows(x)
        self.t = None if soft else target if target.ndim == 1 else target.reshape(target.size)
        self.P = _as_rows(target) if soft else None
        self.w = None if weight is None else array_of("cross_entropy", "weight", weight)

    def run(self, dX: Array | None, options: dict[str, Any]) -> Array:
        """Run the kernel and return the loss."""
        rows = options.get("reduction") == "none"
        y = empty(self.x, self.shape if rows else (), compute_dtype(self.x.dtype))
        loss, total = (y.reshape(y.size), None) if rows else (None, y)
        _core.cross_entropy_forward(self.x, self.t, self.P, self.w, loss, total, dX, **options)
        return y


def _as_rows(x: Array) -> Array:
    """(C,) or (B, C, d1, ...) as (rows, C)."""
    if x.ndim == 2:
        return x
    if x.ndim == 1:
        return x.reshape(1, x.size)
    moved = contiguous(np.moveaxis(x, 1, -1))
    return moved.reshape(prod(moved.shape[:-1]), moved.shape[-1])


def _as_logits(rows: Array, shape: tuple[int, ...]) -> Array:
    """(rows, C) as (C,) or (B, C, d1, ...)."""
    if len(shape) <= 2:
        return rows.reshape(shape)
    return copy(np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1))


def _refuse_grad(**arguments: object) -> None:
    for name, x in arguments.items():
        if mode.enabled and wants_grad(x) is not None:
            raise ValueError(
                f"cross_entropy: {name} must not require a gradient, got one that does; "
                "use .detach()"
            )


def _backward(p: Pass, node: Node, dY: Array) -> None:
    (X,) = node.inputs
    assert X is not None
    (dX,) = node.saved
    if not is_one(dY):
        scaled = empty(dX, dX.shape, dX.dtype)
        _core.scale_rows(dX, dY.reshape(dY.size), scaled)
        dX = scaled
    p.add(X, _as_logits(dX, X.shape), owned=False)
