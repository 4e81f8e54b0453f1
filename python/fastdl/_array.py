"""The few things fastdl does with NumPy arrays besides passing them to kernels."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastdl import _core
from fastdl.errors import capture_error

Array: TypeAlias = npt.NDArray[Any]

ALIGNMENT_BYTES = 64


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


def aligned_zeros(size: int, dtype: npt.DTypeLike) -> Array:
    """Return ``size`` zeros that start at a multiple of 64 bytes."""
    dtype = np.dtype(dtype)
    memory = np.zeros(size * dtype.itemsize + ALIGNMENT_BYTES, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT_BYTES
    return memory[start : start + size * dtype.itemsize].view(dtype)
