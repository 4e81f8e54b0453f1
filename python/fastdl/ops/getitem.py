"""Indexing by integers and slices, and one element of each row."""

from __future__ import annotations

import operator
from math import prod
from typing import Any

import numpy as np

from fastdl import _core
from fastdl._array import Array, contiguous, empty, is_float
from fastdl.errors import capture_error
from fastdl.ops._call import array_of, result, wants_grad
from fastdl.ops.gather import gather
from fastdl.tape import Node, Pass, mode
from fastdl.tensor import ArrayLike, Tensor


def getitem(X: ArrayLike, key: Any) -> ArrayLike:
    """Return ``X[key]``; also ``X[key]`` for Tensors.

    Parameters
    ----------
    X : float32 or float64, any shape; other dtypes without gradient
    key : int, slice, ..., or a tuple of them; or two integer arrays ``(rows, columns)``
        Of the arrays, ``rows`` must be 0, 1, 2, ... for the rows of a matrix: one element of each
        row is taken, by `gather`, whose checks of ``columns`` hold.

    Returns
    -------
    Y : an ndarray if X is one, else a Tensor
        Shares memory with ``X`` if it is contiguous there, as ``X[2:5]`` is; else a copy.

    Raises
    ------
    IndexError
        If an integer is out of range or there are too many.
    TypeError
        If ``key`` is anything else: a mask, a list, None.
    ValueError
        If ``rows`` are not 0, 1, 2, ... or `gather` refuses ``columns``.
    CaptureError
        If a part of an integer array has to be copied in a captured step: a replay checks labels
        and indices before its first kernel runs, so it must find them then.

    Notes
    -----
    Source: NumPy's basic indexing, Harris et al., "Array programming with NumPy", 2020.
    """
    keys = key if isinstance(key, tuple) else (key,)
    if len(keys) == 2 and all(isinstance(k, Tensor | np.ndarray) and k.ndim for k in keys):
        return _of_each_row(X, *keys)
    x = array_of("getitem", "X", X)
    full = _full_key(keys, x.ndim)
    view = x[(*full, ...)]
    y = contiguous(view)
    if y is not view and mode.recorder is not None and not is_float(y.dtype):
        raise capture_error("copies part of an integer array", "take the part outside of it")
    if not isinstance(X, Tensor):
        return y
    return result(y, (wants_grad(X),), _backward, (full,))


def _full_key(keys: tuple[Any, ...], ndim: int) -> tuple[int | slice, ...]:
    """Return one int or slice for each dimension."""
    dots = [i for i, k in enumerate(keys) if k is ...]
    at = dots[0] if dots else len(keys)
    head, tail = keys[:at], keys[at + 1 :]
    missing = ndim - len(head) - len(tail)
    if len(dots) > 1 or missing < 0:
        raise IndexError(f"getitem: key must have at most {ndim} indices and one ..., got {keys}")
    return (*map(_index, head), *[slice(None)] * missing, *map(_index, tail))


def _index(k: Any) -> int | slice:
    if isinstance(k, slice):
        return k
    if isinstance(k, bool | np.bool_ | np.ndarray | Tensor) or not hasattr(k, "__index__"):
        raise TypeError(
            f"getitem: key must be integers, slices and ..., got {type(k).__name__}; "
            "use fastdl.ops.gather, or two integer arrays for one element of each row"
        )
    return operator.index(k)


def _of_each_row(X: ArrayLike, rows: ArrayLike, columns: ArrayLike) -> ArrayLike:
    count = X.shape[0] if X.ndim == 2 else -1
    if not np.array_equal(np.asarray(rows), np.arange(count)):
        raise ValueError(
            "getitem: rows must be 0, 1, 2, ... for all rows of a matrix, got other indices; "
            "use fastdl.ops.gather"
        )
    return gather(X, 1, columns)


def _backward(p: Pass, node: Node, dY: Array) -> None:
    """DX is 0 but for what was taken: dimension by dimension, the last one first."""
    (X,) = node.inputs
    assert X is not None
    (key,) = node.saved
    taken = [_taken(k, size) for k, size in zip(key, X.shape, strict=True)]
    sizes = [len(r) for r in taken]
    cut = [i for i, r in enumerate(taken) if r != range(X.shape[i])]
    if not cut:
        p.add(X, dY.reshape(X.shape), owned=False)
        return
    d = dY
    for i in reversed(cut):
        n, r, m = prod(sizes[:i]), X.shape[i], prod(X.shape[i + 1 :])
        dX = empty(dY, (n, r, m), dY.dtype) if i != cut[0] else p.place(X)
        _core.slice_backward(
            d.reshape(n, sizes[i], m), dX.reshape(n, r, m), taken[i].start, taken[i].step
        )
        d = dX
    p.add(X, d)


def _taken(k: int | slice, size: int) -> range:
    """Return the places that one int or slice takes of a dimension."""
    return range(size)[k] if isinstance(k, slice) else range(k % size, k % size + 1)
