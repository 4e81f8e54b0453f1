"""Normalisation of every row over its own elements."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from fastdl import _core
from fastdl._array import Array, compute_dtype, describe, empty
from fastdl.ops._call import array_of, output, result, wants_grad
from fastdl.tape import Node, Pass
from fastdl.tensor import ArrayLike, Tensor


def layer_norm(
    X: ArrayLike,
    normalized_shape: int | Sequence[int],
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    out: ArrayLike | None = None,
) -> ArrayLike:
    """Return ``(X - mean) / sqrt(var + eps) * weight + bias`` over the last axes, as torch does.

    Parameters
    ----------
    X : (..., *normalized_shape) float32 or float64, on a device also bfloat16
    normalized_shape : int or sequence of int
        The last axes of X; mean and variance are taken over all of them together.
    weight, bias : normalized_shape of X's dtype, or float32 beside bfloat16, optional
    eps : float
    out : like X, optional
        Receives the result; only where no gradient is recorded.

    Returns
    -------
    Y : like X, an ndarray if all of X, weight and bias are, else a Tensor

    Raises
    ------
    ValueError
        If the last axes of X are not ``normalized_shape``, or weight or bias have another shape.
    TypeError
        If dtypes differ or are no float types.

    Notes
    -----
    The variance is a biased, two-pass one.  Source: Ba, Kiros & Hinton, "Layer normalization",
    2016.
    """
    op = "layer_norm"
    x = array_of(op, "X", X)
    shape = _normalized(op, x, normalized_shape)
    gamma, beta = _parameter(op, "weight", weight, shape), _parameter(op, "bias", bias, shape)
    y = output(op, out, x, x.shape, (X, weight, bias))
    rows = _rows(x, shape)
    dtype = compute_dtype(x.dtype)
    mean, rstd = empty(x, rows[0], dtype), empty(x, rows[0], dtype)
    _core.layer_norm_forward(x.reshape(rows), gamma, beta, y.reshape(rows), mean, rstd, eps)
    if out is not None:
        return out
    if not (isinstance(X, Tensor) or isinstance(weight, Tensor) or isinstance(bias, Tensor)):
        return y
    inputs = (wants_grad(X), wants_grad(weight), wants_grad(bias))
    return result(y, inputs, _backward, (x.reshape(rows), gamma, mean, rstd))


def layer_norm_backward(
    dY: Array,
    X: Array,
    normalized_shape: int | Sequence[int],
    mean: Array,
    rstd: Array,
    weight: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Return ``(dX, dweight, dbias)`` of `layer_norm`, for arrays.

    Parameters
    ----------
    dY, X : (..., *normalized_shape)
    normalized_shape : int or sequence of int
    mean, rstd : one number for each row, in any shape
        The statistics of the forward pass; ``rstd`` is ``1 / sqrt(var + eps)``.
    weight : normalized_shape, optional

    Returns
    -------
    dX like X, dweight and dbias of shape normalized_shape

    Raises
    ------
    ValueError, TypeError
        As `layer_norm`.
    """
    op = "layer_norm_backward"
    x, dy = array_of(op, "X", X), array_of(op, "dY", dY)
    shape = _normalized(op, x, normalized_shape)
    if dy.shape != x.shape:
        raise ValueError(f"{op}: dY must have the shape of X, {x.shape}, got {describe(dy)}")
    rows, gamma = _rows(x, shape), _parameter(op, "weight", weight, shape)
    dX = empty(x, x.shape, x.dtype)
    dtype = compute_dtype(x.dtype)
    dgamma, dbeta = empty(x, rows[1], dtype), empty(x, rows[1], dtype)
    _core.layer_norm_backward(
        dy.reshape(rows),
        x.reshape(rows),
        gamma,
        array_of(op, "mean", mean).reshape(-1),
        array_of(op, "rstd", rstd).reshape(-1),
        dX.reshape(rows),
        dgamma,
        dbeta,
    )
    return dX, dgamma.reshape(shape), dbeta.reshape(shape)


def _normalized(op: str, x: Array, normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    """Return ``normalized_shape`` as a tuple if it is that of the last axes."""
    axes = normalized_shape if isinstance(normalized_shape, Sequence) else (normalized_shape,)
    shape = tuple(axes)
    if not shape:
        raise ValueError(f"{op}: normalized_shape must have an axis, got ()")
    if x.shape[-len(shape) :] != shape:
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"{op}: X must have the shape (..., {wanted}), got {describe(x)}")
    return shape


def _parameter(op: str, name: str, p: ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
    """Return weight or bias as a flat array."""
    if p is None:
        return None
    array = array_of(op, name, p)
    if array.shape != shape:
        raise ValueError(f"{op}: {name} must have the shape {shape}, got {describe(array)}")
    return array.reshape(-1)


def _rows(x: Array, shape: tuple[int, ...]) -> tuple[int, int]:
    """The shape of ``x`` as a matrix with a row for each mean."""
    return prod(x.shape[: -len(shape)]), prod(shape)


def _backward(p: Pass, node: Node, dY: Array) -> None:
    X, weight, bias = node.inputs
    x, gamma, mean, rstd = node.saved
    dgamma, dbeta, accumulate = p.pair(weight, bias)
    dX = None if X is None else p.place(X)
    _core.layer_norm_backward(
        dY.reshape(x.shape),
        x,
        gamma,
        mean,
        rstd,
        None if dX is None else dX.reshape(x.shape),
        None if dgamma is None else dgamma.reshape(-1),
        None if dbeta is None else dbeta.reshape(-1),
        accumulate,
    )
    for t, d in ((X, dX), (weight, dgamma), (bias, dbeta)):
        if t is not None and d is not None:
            p.add(t, d)
