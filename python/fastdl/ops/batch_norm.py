"""Normalisation of every channel over the batch."""

from __future__ import annotations

from math import prod

from fastdl import _core
from fastdl._array import Array, compute_dtype, describe, empty
from fastdl.ops._call import array_of, output, result, wants_grad
from fastdl.tape import Node, Pass
from fastdl.tensor import ArrayLike, Tensor


def batch_norm(
    X: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    num_batches_tracked: ArrayLike | None = None,
    activation: str | None = None,
    out: ArrayLike | None = None,
) -> ArrayLike:
    """Return ``(X - mean) / sqrt(var + eps) * weight + bias`` per channel, as torch does.

    Parameters
    ----------
    X : (N, C) or (N, C, d1, ...) float32 or float64, on a device also bfloat16
    running_mean, running_var : (C,) of X's dtype, or float32 beside bfloat16, or None
        Used if not ``training``, else updated in place: ``r = (1 - momentum) r + momentum s``, with
        the unbiased variance.
    weight, bias : (C,) as the running statistics, optional
    training : bool
        Normalise with the batch's own statistics.
    momentum : float in [0, 1], or None
        None keeps the plain average of all batches and needs ``num_batches_tracked``.
    eps : float
    num_batches_tracked : int64, 0-d, optional
        Counts the batches seen in training.
    activation : None or "relu"
        Applied to the result in the same pass; so is its derivative backward.
    out : like X, optional
        Receives the result; only where no gradient is recorded.

    Returns
    -------
    Y : like X, an ndarray if all of X, weight and bias are, else a Tensor

    Raises
    ------
    ValueError
        If shapes do not fit, statistics are missing, ``activation`` is unknown, or a channel has a
        single value in training.
    TypeError
        If dtypes differ or are no float types.

    Notes
    -----
    The variance is a two-pass one.  Source: Ioffe & Szegedy, "Batch normalization", 2015.
    """
    op = "batch_norm"
    if activation not in (None, "relu"):
        raise ValueError(f"{op}: activation must be None or 'relu', got {activation!r}")
    x = array_of(op, "X", X)
    x3 = _channels(x, op)
    if training and x3.shape[0] * x3.shape[2] == 1:
        raise ValueError(
            f"batch_norm: X must have more than 1 value per channel in training, got {describe(x)}"
        )
    if momentum is None and training and num_batches_tracked is None and running_mean is not None:
        raise ValueError(
            "batch_norm: momentum must be a number unless num_batches_tracked is given, got None"
        )
    gamma = None if weight is None else array_of(op, "weight", weight)
    beta = None if bias is None else array_of(op, "bias", bias)
    y = output(op, out, x, x.shape, (X, weight, bias))
    dtype = compute_dtype(x.dtype)
    mean, rstd = empty(x, x3.shape[1], dtype), empty(x, x3.shape[1], dtype)
    _core.batch_norm_forward(
        x3,
        gamma,
        beta,
        _statistic(running_mean),
        _statistic(running_var),
        _statistic(num_batches_tracked) if training else None,
        y.reshape(x3.shape),
        mean,
        rstd,
        eps,
        -1.0 if momentum is None else momentum,
        training,
        activation or "none",
    )
    if out is not None:
        return out
    if not (isinstance(X, Tensor) or isinstance(weight, Tensor) or isinstance(bias, Tensor)):
        return y
    inputs = (wants_grad(X), wants_grad(weight), wants_grad(bias))
    saved = x3, gamma, beta, mean, rstd, training
    return result(y, inputs, _backward, saved, activation or "none")


def batch_norm_backward(
    dY: Array,
    X: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None = None,
    training: bool = True,
    *,
    bias: Array | None = None,
    activation: str | None = None,
) -> tuple[Array, Array, Array]:
    """Return ``(dX, dweight, dbias)`` of `batch_norm`, for arrays.

    Parameters
    ----------
    dY, X : (N, C) or (N, C, d1, ...)
    mean, rstd : (C,)
        The statistics that the forward pass used; ``rstd`` is ``1 / sqrt(var + eps)``.
    weight : (C,), optional
    training : bool
        Whether the statistics were those of the batch.
    bias : (C,), optional
        Matters to an activation alone.
    activation : None or "relu"
        That of the forward pass.

    Returns
    -------
    dX like X, dweight (C,), dbias (C,)

    Raises
    ------
    ValueError, TypeError
        As `batch_norm`.
    """
    op = "batch_norm_backward"
    x3 = _channels(array_of(op, "X", X), op)
    dy3 = _channels(array_of(op, "dY", dY), op)
    gamma = None if weight is None else array_of(op, "weight", weight)
    beta = None if bias is None else array_of(op, "bias", bias)
    mean, rstd = array_of(op, "mean", mean), array_of(op, "rstd", rstd)
    dX = empty(x3, x3.shape, x3.dtype)
    dgamma, dbeta = empty(x3, mean.shape, mean.dtype), empty(x3, mean.shape, mean.dtype)
    act = activation or "none"
    _core.batch_norm_backward(dy3, x3, gamma, beta, mean, rstd, dX, dgamma, dbeta, training, act)
    return dX.reshape(X.shape), dgamma, dbeta


def _channels(x: Array, op: str) -> Array:
    """(N, C, d1, ...) as (N, C, S)."""
    if x.ndim == 3:
        return x
    if x.ndim < 2:
        raise ValueError(f"{op}: X must be (N, C) or (N, C, ...), got {describe(x)}")
    return x.reshape(*x.shape[:2], prod(x.shape[2:]))


def _statistic(x: ArrayLike | None) -> Array | None:
    return x._array if isinstance(x, Tensor) else x


def _backward(p: Pass, node: Node, dY: Array) -> None:
    X, weight, bias = node.inputs
    x, gamma, beta, mean, rstd, training = node.saved
    act = node.activation if p.must_differentiate(node) else "none"
    dgamma, dbeta, accumulate = p.pair(weight, bias)
    dX = None if X is None else p.place(X)
    dx = None if dX is None else dX.reshape(x.shape)
    _core.batch_norm_backward(
        dY.reshape(x.shape), x, gamma, beta, mean, rstd, dx, dgamma, dbeta, training, act,
        accumulate,
    )  # fmt: skip
    for t, d in ((X, dX), (weight, dgamma), (bias, dbeta)):
        if t is not None and d is not None:
            p.add(t, d)
