"""Arrays of other libraries in and out, without a copy: DLPack and __cuda_array_interface__.

On the CPU NumPy does it; on a device csrc/bind/dlpack.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastdl import _core
from fastdl._array import Array, is_bfloat16
from fastdl.errors import capture_error
from fastdl.tape import mode

if TYPE_CHECKING:
    from fastdl.tensor import Tensor


def export(
    t: Tensor,
    *,
    stream: int | None = None,
    max_version: tuple[int, int] | None = None,
    dl_device: tuple[int, int] | None = None,
    copy: bool | None = None,
) -> Any:
    """Return a DLPack capsule of a tensor's memory, as ``__dlpack__`` must.

    Raises
    ------
    BufferError
        If it cannot be done without a copy, or a copy is wanted.
    """
    if mode.recorder is not None:
        raise capture_error("exports a tensor", "do it outside of the captured function")
    x = t._array
    if t.requires_grad:
        raise BufferError("__dlpack__: tensor must not require a gradient; use .detach()")
    if isinstance(x, np.ndarray):
        wishes: dict[str, Any] = {
            "stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy
        }  # fmt: skip
        return x.__dlpack__(**{k: v for k, v in wishes.items() if v is not None})
    if copy or dl_device not in (None, dlpack_device(x)):
        raise BufferError(
            f"__dlpack__: only the memory itself, on {x.device}, is handed out; use .cpu() or copy "
            "it there"
        )
    return _core.to_dlpack(x, stream, max_version is not None and max_version[0] >= 1)


def dlpack_device(x: Array) -> tuple[int, int]:
    """Return DLPack's kind and number of the device of an array."""
    if isinstance(x, np.ndarray):
        return x.__dlpack_device__()
    return _core.dlpack_device(x)


def cuda_array_interface(t: Tensor) -> dict[str, Any]:
    """Return version 3 of the interface; the consumer waits for ``stream``.

    Raises
    ------
    AttributeError
        If the tensor is not on a GPU, so that ``hasattr`` is False, or wants a gradient.
    """
    if t.device != "cuda" or t.requires_grad or is_bfloat16(t.dtype):
        raise AttributeError(
            "__cuda_array_interface__: tensor must be on cuda, must not require a gradient, and "
            "must not be bfloat16, for which the interface has no name but DLPack has"
        )
    return interface_of(t._array)


def interface_of(x: Any) -> dict[str, Any]:
    """Return the interface of an array on a device."""
    return {
        "shape": x.shape,
        "typestr": x.dtype.str,
        "data": (x.pointer if x.size else 0, not x.flags.writeable),
        "version": 3,
        "strides": None if x.flags.c_contiguous else x.strides,
        "stream": _core.stream(x.device),
    }


def from_dlpack(x: Any) -> Tensor:
    """Return a tensor that shares the memory of another library's array.

    Parameters
    ----------
    x : object with ``__dlpack__``, or else with ``__cuda_array_interface__``
        An array of NumPy, PyTorch, CuPy, JAX, Numba, ... on the CPU or on the first GPU, of
        float32, float64, int32, int64 or uint8, on a GPU also bfloat16.

    Returns
    -------
    t : Tensor
        Shares the memory if that is C-contiguous, else holds a copy.  What is done with it waits
        for what ``x`` still waits for, and ``x`` may be freed or changed by others on the same
        stream rules: a consumer on another stream calls ``__dlpack__`` of the tensor.

    Raises
    ------
    TypeError
        If ``x`` has none of the two, or another dtype.
    RuntimeError
        If its memory is elsewhere, or the device cannot be used.
    """
    from fastdl.tensor import Tensor

    if hasattr(x, "__dlpack__"):
        return Tensor(_imported(x))
    if hasattr(x, "__cuda_array_interface__"):
        return Tensor(from_interface(x, "cuda"))
    raise TypeError(
        f"from_dlpack: x must have __dlpack__ or __cuda_array_interface__, got {type(x).__name__}"
    )


_CPU_MEMORY = (1, 3)  # kDLCPU, kDLCUDAHost


def _imported(x: Any) -> Array:
    kind, number = x.__dlpack_device__()
    if kind in _CPU_MEMORY:
        return _on_cpu(x)
    device = _core.dlpack_name(kind, number)
    options = {"stream": _core.stream(device)}
    try:
        capsule = x.__dlpack__(max_version=(1, 0), **options)
    except TypeError:  # a producer from before DLPack 1.0
        capsule = x.__dlpack__(**options)
    return _core.from_dlpack(capsule)


def _on_cpu(x: Any) -> Array:
    try:
        return np.from_dlpack(x)
    except (BufferError, RuntimeError) as error:
        if "dtype" not in str(error):
            raise
        raise TypeError(
            f"from_dlpack: x must be of a dtype that NumPy has, got {getattr(x, 'dtype', error)}; "
            "convert it first, bfloat16 to float32"
        ) from error


def from_interface(x: Any, device: str) -> Array:
    """Return an array over the memory of an object with ``__cuda_array_interface__``."""
    given = x.__cuda_array_interface__
    shape, dtype = tuple(given["shape"]), np.dtype(given["typestr"])
    pointer, readonly = given["data"]
    if 0 in shape:
        return _core.empty_on(device, shape, dtype)
    return _core.from_interface(
        device,
        pointer,
        readonly,
        shape,
        given.get("strides"),
        dtype,
        given.get("stream"),
        x,
    )
