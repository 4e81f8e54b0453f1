"""The few things fastdl does with arrays besides passing them to kernels.

`Array` is an ndarray or, on a device, a `_core.DeviceArray`: that has the attributes and views of
an ndarray, but values that the host can read by `on_host` alone.
"""

from __future__ import annotations

import itertools
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastdl import _core
from fastdl._extras import need
from fastdl.errors import capture_error

Array: TypeAlias = npt.NDArray[Any]

#: What an `Array` is an instance of.
ARRAYS = (np.ndarray, _core.DeviceArray)

#: ``empty(like, shape, dtype)`` returns an uninitialised array where ``like`` is; the memory of a
#: large one starts at 64 bytes and comes from a pool of blocks (`fastdl.set_pool_bytes`).  NumPy
#: aligns to 16 bytes, and then every vector that a kernel stores lies in two lines: products of
#: 1024 x 1024 x 1024 take 2 to 3 % longer.
empty = _core.empty

ALIGNMENT_BYTES = 64
PAGE_BYTES = 4096
#: Where in a page the arrays of an arena begin, in turn.  What is read and written together must
#: not begin at the same place, or at a distance of a power of two: it would meet in the same sets
#: of the caches and the same banks of memory.
_places = itertools.cycle(range(0, PAGE_BYTES, 9 * ALIGNMENT_BYTES))
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
#: The gradient of a 0-d loss, by dtype; on a device by (dtype, device).
ONES: dict[Any, Array] = {dtype: np.ones((), dtype) for dtype in FLOATS}
for _one in ONES.values():
    _one.flags.writeable = False


# ---- dtypes -------------------------------------------------------------------------------------


def bfloat16_dtype() -> np.dtype[Any]:
    """Return bfloat16 as NumPy knows it from the package ml_dtypes; MissingExtraError without."""
    dtype: np.dtype[Any] = np.dtype(need("ml_dtypes", "bfloat16", "bf16").bfloat16)
    return dtype


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Return whether ``dtype`` is bfloat16; needs no ml_dtypes."""
    return dtype.kind == "V" and dtype.name == "bfloat16"


def is_float(dtype: np.dtype[Any]) -> bool:
    """Return whether ``dtype`` is a float type, bfloat16 included, which NumPy counts as none."""
    return dtype.kind == "f" or is_bfloat16(dtype)


def as_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return the dtype that a user names; "bfloat16" is one too."""
    return bfloat16_dtype() if isinstance(dtype, str) and dtype == "bfloat16" else np.dtype(dtype)


def compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return what kernels compute in where arrays store ``dtype``."""
    return FLOATS[0] if is_bfloat16(dtype) else dtype


def destination(
    target: npt.DTypeLike | None, dtype: npt.DTypeLike | None, device: str | None
) -> tuple[str | None, np.dtype[Any] | None]:
    """Return the device's name and the float dtype that the arguments of a ``to`` give, or None."""
    if target is not None or dtype is device is None:
        named = _names_dtype(target)
        before = dtype if named else device
        if before is not None:
            raise TypeError(f"to: one device and one dtype, got {target!r} and {before!r}")
        if named:
            dtype = target
        else:
            device = str(target)
    return device, None if dtype is None else _float_dtype(dtype)


def _names_dtype(target: npt.DTypeLike | None) -> bool:
    if not isinstance(target, str | type | np.dtype):
        raise TypeError(
            f"to: target must be a device's name or a float dtype, got {type(target).__name__}"
        )
    try:
        as_dtype(target)
    except TypeError:
        return not isinstance(target, str)
    return True


def _float_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    found = as_dtype(dtype)
    if found not in FLOATS and not is_bfloat16(found):
        raise TypeError(f"to: dtype must be float32, float64 or bfloat16, got {found}")
    return found


def cast(x: Array, dtype: np.dtype[Any]) -> Array:
    """Return a copy of contiguous ``x`` in another float dtype, made by a kernel."""
    y = empty(x, x.shape, dtype)
    _core.cast(x, y)
    return y


def accumulate(x: Array, total: Array) -> None:
    """Add ``x`` to ``total``; bfloat16 on the CPU, which stores none, by way of float32."""
    if isinstance(total, np.ndarray) and is_bfloat16(total.dtype):
        wide = cast(total, FLOATS[0])
        _core.accumulate(cast(x, FLOATS[0]), wide)
        _core.cast(wide, total)
    else:
        _core.accumulate(x, total)


# ---- memory -------------------------------------------------------------------------------------


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
        return x.copy(order="C") if isinstance(x, np.ndarray) else to_device(x.numpy(), x.device)
    y = empty(x, x.shape, x.dtype)
    _core.copy(x, y)
    return y


def _on_a_line(
    memory: Array,
    shape: int | tuple[int, ...],
    dtype: np.dtype[Any],
    place: int = 0,
    period: int = ALIGNMENT_BYTES,
) -> Array:
    """Return an array of ``shape`` in ``memory``, which has ``period`` bytes more than it needs.

    It starts ``place`` bytes after a multiple of ``period``.
    """
    start = (place - memory.ctypes.data) % period
    end = start + memory.size - period
    return memory[start:end].view(dtype).reshape(shape)


def strided(x: Array, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """Return a view of contiguous ``x`` with other sizes and strides (in bytes)."""
    if isinstance(x, np.ndarray):
        return np.ndarray(shape, x.dtype, x, 0, strides)
    return x.strided(shape, strides)


def aligned_zeros(size: int, dtype: npt.DTypeLike, device: str = "cpu") -> Array:
    """Return ``size`` zeros that start at a multiple of 64 bytes."""
    dtype = np.dtype(dtype)
    if device != "cpu":
        return to_device(np.zeros(size, dtype), device)
    n_bytes = size * dtype.itemsize
    if n_bytes < PAGE_BYTES:
        return _on_a_line(np.zeros(n_bytes + ALIGNMENT_BYTES, np.uint8), size, dtype)
    memory = np.zeros(n_bytes + PAGE_BYTES, np.uint8)
    return _on_a_line(memory, size, dtype, next(_places), PAGE_BYTES)


def differentiable(array: Array) -> bool:
    """Return True, or raise TypeError for a dtype that has no gradient."""
    if array.dtype not in FLOATS and not is_bfloat16(array.dtype):
        raise TypeError(
            f"requires_grad: tensor must be float32, float64 or bfloat16, got {array.dtype}; "
            "convert with .astype(...)"
        )
    return True


# ---- devices ------------------------------------------------------------------------------------


def on_host(x: Array) -> Array:
    """Return ``x`` if it is an ndarray, else a copy in one, when the device has got that far."""
    return x if isinstance(x, np.ndarray) else x.numpy()


def to_device(x: Array, device: str, non_blocking: bool = False) -> Array:
    """Return ``x`` if it is on ``device``, else a copy there."""
    if x.device == device:
        return x
    x = contiguous(on_host(x))
    if device == "cpu":
        return x
    y = _core.empty_on(device, x.shape, x.dtype)
    y.write(x, non_blocking)
    return y


def placed(x: Array, beside: Array) -> Array:
    """Return ``x``, a small array that stays as it is, on the device of another."""
    if isinstance(beside, np.ndarray):
        return x
    return to_device(x, beside.device, non_blocking=True)


def assign(target: Array, values: Array | float) -> None:
    """Copy values into an array, from wherever they are; shapes broadcast from the host."""
    if isinstance(target, np.ndarray):
        target[...] = values if isinstance(values, float | int) else on_host(values)
    elif isinstance(values, _core.DeviceArray):
        _core.copy(values, target)
    else:
        same = np.broadcast_to(np.asarray(values, target.dtype), target.shape)
        target.write(np.ascontiguousarray(same).reshape(target.shape), False)


def one_beside(x: Array) -> Array:
    """Return the 1 that a backward pass from a 0-d ``x`` starts with."""
    key = x.dtype if isinstance(x, np.ndarray) else (x.dtype, x.device)
    if key not in ONES:
        ONES[key] = placed(np.ones((), x.dtype), x)
    return ONES[key]
