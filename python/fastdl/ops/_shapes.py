"""Shapes that broadcast, and dimensions that are reduced."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from math import prod
from typing import TypeAlias

from fastdl import _core
from fastdl._array import Array, describe, empty, strided

Shape: TypeAlias = tuple[int, ...]
Dim: TypeAlias = int | tuple[int, ...] | None


def broadcast_shape(op: str, x: Array, other: Array) -> Shape:
    """Return the shape to which both broadcast, by NumPy's rule.

    Raises
    ------
    ValueError
        If two sizes differ and none of them is 1.
    """
    if x.shape == other.shape:
        return x.shape
    ndim = max(x.ndim, other.ndim)
    sizes = []
    for m, n in zip(_padded(x.shape, ndim), _padded(other.shape, ndim), strict=True):
        if m != n and 1 not in (m, n):
            raise ValueError(
                f"{op}: other must broadcast with X, {describe(x)}, got {describe(other)}"
            )
        sizes.append(n if m == 1 else m)
    return tuple(sizes)


def expanded(x: Array, shape: Shape) -> Array:
    """Return a view of contiguous ``x`` with ``shape``: strides of 0 where it is broadcast."""
    if x.shape == shape:
        return x
    ndim = len(shape)
    if x.ndim == 0:
        return strided(x, shape, (0,) * ndim)
    strides = (0,) * (ndim - x.ndim) + x.strides
    sizes = _padded(x.shape, ndim)
    flat = tuple([0 if size == 1 else s for size, s in zip(sizes, strides, strict=True)])
    return strided(x, shape, flat)


def reduced_to(x: Array, shape: Shape) -> Array:
    """Return ``x`` summed over the dimensions along which ``shape`` was broadcast to it."""
    if x.shape == shape:
        return x
    sizes = zip(_padded(shape, x.ndim), x.shape, strict=True)
    dims = [i for i, (size, full) in enumerate(sizes) if size != full]
    return (total(x, dims) if dims else x).reshape(shape)


def total(x: Array, dims: Iterable[int], count: int = 1) -> Array:
    """Return the sum of ``x`` over ``dims`` divided by ``count``, of any shape of its size."""
    groups = runs(x.shape, dims)
    for i, (n, r, m) in enumerate(groups, 1):
        y = empty(x, (n, m), x.dtype)
        _core.sum_forward(x.reshape(n, r, m), y, count if i == len(groups) else 1)
        x = y
    return x


def runs(shape: Shape, dims: Iterable[int]) -> list[tuple[int, int, int]]:
    """Group neighbours among ``dims``, last group first: sizes before, of, and behind each.

    What an earlier group has reduced counts no longer; no dimension at all is one group of size 1.
    """
    left = sorted(dims)
    if not left:
        return [(1, 1, prod(shape))]
    if len(left) == len(shape):
        return [(1, prod(shape), 1)]
    groups, behind, stop = [], 1, len(shape)
    while left:
        last = first = left.pop()
        while left and left[-1] == first - 1:
            first = left.pop()
        behind *= prod(shape[last + 1 : stop])
        groups.append((prod(shape[:first]), prod(shape[first : last + 1]), behind))
        stop = first
    return groups


def checked_dims(op: str, dim: Dim, ndim: int) -> tuple[int, ...]:
    """Return ``dim`` as dimensions >= 0 in ascending order; None and () are all of them.

    Raises
    ------
    ValueError
        If a dimension is out of range or given twice.
    """
    if dim is None or dim == ():
        return tuple(range(ndim))
    given = [operator.index(d) for d in dim] if isinstance(dim, tuple | list) else [dim]
    dims = sorted({checked_dim(op, d, ndim) for d in given})
    if len(dims) != len(given):
        raise ValueError(f"{op}: dim must name each dimension once, got {dim}")
    return tuple(dims) if ndim else ()


def checked_dim(op: str, dim: int, ndim: int) -> int:
    """Return one dimension as a number >= 0; a 0-d array counts as one of one dimension."""
    d, n = operator.index(dim), max(ndim, 1)
    if not -n <= d < n:
        raise ValueError(f"{op}: dim must be in [{-n}, {n}), got {dim}")
    return d % n


def kept(shape: Shape, dims: Iterable[int]) -> Shape:
    """Return ``shape`` with size 1 in the reduced dimensions."""
    gone = set(dims)
    return tuple([1 if i in gone else size for i, size in enumerate(shape)])


def removed(shape: Shape, dims: Iterable[int]) -> Shape:
    """Return ``shape`` without the reduced dimensions."""
    gone = set(dims)
    return tuple([size for i, size in enumerate(shape) if i not in gone])


def _padded(shape: Shape, ndim: int) -> Shape:
    return (1,) * (ndim - len(shape)) + shape
