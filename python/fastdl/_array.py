"""The few things fastdl does with NumPy arrays besides passing them to kernels."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastdl import _core
from fastdl.errors import capture_error

Array: TypeAlias = npt.NDArray[Any]

ALIGNMENT_BYTES = 64
LARGE_BYTES = 1 << 20  # from here on aligning, 3 us, is less than what it saves


def describe(x: Array) -> str:
    """Return dtype and shape as error texts show them, e.g. ``float32(2, 3)``."""
    return f"{x.dtype}({', '.join(map(str, x.shape))})"


def contiguous(x: Array) -> Array:
    """Return ``x`` itself if it is C-contiguous and aligned, else a copy."""
    flags = x.flags
    if flags.c_contiguous and flags.aligned:
        return x
    return copy(x)


def copy(x: Array) -> Array:
    """Return a contiguous copy of ``x``, made by a kernel so that it is recorded.

    Only a layout that no kernel reads (elements at odd addresses) is copied by NumPy, which is
    impossible while a step is recorded.
    """
    if not x.flags.aligned or any(s % x.itemsize for s in x.strides):
        if _core.recording():
            raise capture_error("uses an unaligned array", "copy it outside of the function")
        return x.copy(order="C")
    y = np.empty(x.shape, x.dtype)
    _core.copy(x, y)
    return y


def _on_a_line(memory: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an array of ``shape`` in ``memory``, which has ALIGNMENT_BYTES more than it needs."""
    start = -memory.ctypes.data % ALIGNMENT_BYTES
    end = start + memory.size - ALIGNMENT_BYTES
    return memory[start:end].view(dtype).reshape(shape)


def aligned_zeros(size: int, dtype: npt.DTypeLike) -> Array:
    """Return ``size`` zeros that start at a multiple of 64 bytes."""
    dtype = np.dtype(dtype)
    return _on_a_line(np.zeros(size * dtype.itemsize + ALIGNMENT_BYTES, np.uint8), (size,), dtype)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return ``np.empty(shape, dtype)`` which, if large, starts at a multiple of 64 bytes.

    NumPy aligns to 16 bytes, and then every vector that a kernel stores lies in two lines: products
    of 1024 x 1024 x 1024 take 2 to 3 % longer.
    """
    y = np.empty(shape, dtype)
    if y.nbytes < LARGE_BYTES:
        return y
    return _on_a_line(np.empty(y.nbytes + ALIGNMENT_BYTES, np.uint8), shape, dtype)
