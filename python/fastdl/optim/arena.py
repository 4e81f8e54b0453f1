"""Flat arenas: parameters side by side in memory, and their gradients likewise.

An optimizer moves parameters that have no home yet into a new arena and leaves the others where
they are, so that several optimizers can share parameters.  Segments start at multiples of 64 bytes;
the padding belongs to the segment before it and holds zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastdl._array import ALIGNMENT_BYTES, Array, aligned_zeros, assign
from fastdl.tape import layout_changed
from fastdl.tensor import Tensor


class Arena:
    """The values and gradients of several parameters of one dtype."""

    def __init__(self, size: int, dtype: np.dtype[Any], device: str) -> None:
        self.theta = aligned_zeros(size, dtype, device)
        self.grad = aligned_zeros(size, dtype, device)


class Segment:
    """Where a parameter lives: elements ``start`` to ``stop`` of an arena, padding included.

    ``writer`` is the mark of the last `Run` that rounded float32 weights to it.
    """

    __slots__ = ("arena", "grad", "start", "stop", "theta", "writer")

    def __init__(self, arena: Arena, start: int, stop: int, shape: tuple[int, ...]) -> None:
        self.arena = arena
        self.start = start
        self.stop = stop
        self.theta: Array = segment_view(arena.theta, start, shape)
        self.grad: Array = segment_view(arena.grad, start, shape)
        self.writer: object = None


def segment_view(flat: Array, start: int, shape: tuple[int, ...]) -> Array:
    """Return the view of a parameter's shape that begins at ``start``."""
    return flat[start : start + int(np.prod(shape, dtype=np.int64))].reshape(shape)


def settle(params: Sequence[Tensor]) -> None:
    """Give every parameter a home; those of one dtype and device that have none share an arena."""
    homeless = [p for p in params if p._home is None]
    for kind in dict.fromkeys((p.dtype, p.device) for p in homeless):
        _move([p for p in homeless if (p.dtype, p.device) == kind], *kind)
    if homeless:
        layout_changed()


def _move(params: list[Tensor], dtype: np.dtype[Any], device: str) -> None:
    stops = np.cumsum([_padded_size(p, dtype) for p in params]).tolist()
    arena = Arena(stops[-1], dtype, device)
    for p, start, stop in zip(params, [0, *stops], stops, strict=False):
        home = Segment(arena, start, stop, p.shape)
        assign(home.theta, p._array)
        if p._grad is not None:
            assign(home.grad, p._grad)
            p._grad = home.grad
        p._array = home.theta
        p._home = home


def _padded_size(p: Tensor, dtype: np.dtype[Any]) -> int:
    align = ALIGNMENT_BYTES // dtype.itemsize
    return -(-p.size // align) * align


def runs_of(params: Sequence[Tensor]) -> list[list[Tensor]]:
    """Split settled parameters into longest runs that lie one after the other in an arena."""
    runs: list[list[Tensor]] = []
    for p in params:
        last = runs[-1][-1]._home if runs else None
        home = p._home
        assert home is not None
        if last is not None and last.arena is home.arena and last.stop == home.start:
            runs[-1].append(p)
        else:
            runs.append([p])
    return runs
