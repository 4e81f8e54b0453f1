"""Sum, difference and product of two arrays, or of an array and a number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from fastdl import _core, tape
from fastdl._array import Array, empty, placed
from fastdl.ops._call import array_of, output, result, wants_grad
from fastdl.ops._shapes import broadcast_shape, expanded, reduced_to
from fastdl.tape import Backward, Node, Pass
from fastdl.tensor import ArrayLike, Tensor

Operand: TypeAlias = "ArrayLike | float"

_NUMBERS = (float, int, np.floating, np.integer)
_LARGEST = {np.dtype(t): float(np.finfo(t).max) for t in (np.float32, np.float64)}


def add(X: Operand, other: Operand, *, out: ArrayLike | None = None) -> ArrayLike:
    """Return ``X + other``, element by element; also ``X + other`` for Tensors.

    Parameters
    ----------
    X, other : float32 or float64 of one dtype, or one of them a number
        Shapes broadcast by NumPy's rule.  A number is rounded to the dtype of the array.
    out : of the broadcast shape, optional
        Receives the result and may be an operand of that shape; only where no gradient is recorded.

    Returns
    -------
    Y : an ndarray if no argument is a Tensor, else a Tensor

    Raises
    ------
    ValueError
        If shapes do not broadcast, or a finite number is infinite in the dtype of the array.
    TypeError
        If dtypes differ or are no float types, or both are numbers.

    Notes
    -----
    In a captured step a number is frozen; what changes from call to call must be an array, which
    may be 0-d.  The gradient of a broadcast operand is summed in a fixed order.  Source: NumPy's
    broadcasting, Harris et al., "Array programming with NumPy", 2020.
    """
    return _apply("add", _core.add_forward, _add_backward, X, other, out)


def sub(X: Operand, other: Operand, *, out: ArrayLike | None = None) -> ArrayLike:
    """Return ``X - other``, element by element; also ``X - other`` for Tensors.

    Parameters
    ----------
    X, other, out
        As for `add`.

    Raises
    ------
    ValueError, TypeError
        As `add`.

    Notes
    -----
    As for `add`.  Source: as `add`.
    """
    return _apply("sub", _core.sub_forward, _sub_backward, X, other, out)


def mul(X: Operand, other: Operand, *, out: ArrayLike | None = None) -> ArrayLike:
    """Return ``X * other``, element by element; also ``X * other`` for Tensors.

    Parameters
    ----------
    X, other, out
        As for `add`.

    Raises
    ------
    ValueError, TypeError
        As `add`.

    Notes
    -----
    As for `add`.  Source: as `add`.
    """
    return _apply("mul", _core.mul_forward, _mul_backward, X, other, out)


def _apply(
    op: str,
    kernel: Callable[[Array, Array, Array], None],
    backward: Backward,
    X: Operand,
    other: Operand,
    out: ArrayLike | None,
) -> ArrayLike:
    x, z = _operands(op, X, other)
    shape = broadcast_shape(op, x, z)
    y = empty(x, shape, x.dtype) if out is None else output(op, out, x, shape, (X, other))
    kernel(expanded(x, shape), expanded(z, shape), y)
    if out is not None:
        return out
    if not (isinstance(X, Tensor) or isinstance(other, Tensor)):
        return y
    return result(y, (wants_grad(X), wants_grad(other)), backward, (x, z))


def _operands(op: str, X: Operand, other: Operand) -> tuple[Array, Array]:
    """Return both as arrays; a number takes the dtype of the other operand."""
    if isinstance(other, _NUMBERS):
        x = array_of(op, "X", X)  # type: ignore[arg-type]  # a second number is refused there
        return x, _number(op, "other", other, x)
    z = array_of(op, "other", other)
    return _number(op, "X", X, z) if isinstance(X, _NUMBERS) else array_of(op, "X", X), z


def _number(op: str, name: str, value: float, like: Array) -> Array:
    """Return a number as a 0-d array of the dtype of ``like``, beside it.

    Raises
    ------
    ValueError
        If a finite number is infinite in that dtype.
    """
    dtype = like.dtype
    if _LARGEST.get(dtype, math.inf) < abs(float(value)) < math.inf:
        raise ValueError(f"{op}: {name} must be a number that {dtype} can hold, got {value}")
    return tape.constant(placed(np.array(value, dtype), like))


def _add_backward(p: Pass, node: Node, dY: Array) -> None:
    for t in node.inputs:
        if t is not None:
            p.add(t, reduced_to(dY, t.shape), owned=False)


def _sub_backward(p: Pass, node: Node, dY: Array) -> None:
    X, other = node.inputs
    if X is not None:
        p.add(X, reduced_to(dY, X.shape), owned=False)
    if other is not None:
        d = reduced_to(dY, other.shape)
        dother = p.place(other)
        _core.mul_forward(d, expanded(_number("sub", "other", -1, d), d.shape), dother)
        p.add(other, dother)


def _mul_backward(p: Pass, node: Node, dY: Array) -> None:
    x, z = node.saved
    for t, factor in zip(node.inputs, (z, x), strict=True):
        if t is None:
            continue
        same = t.shape == dY.shape
        d = p.place(t) if same else empty(dY, dY.shape, dY.dtype)
        _core.mul_forward(dY, expanded(factor, dY.shape), d)
        p.add(t, d if same else reduced_to(d, t.shape))
