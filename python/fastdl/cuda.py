"""The GPU: whether there is one, waiting for it, and memory that is quick to copy from.

A process works on the first GPU of ``CUDA_VISIBLE_DEVICES``, in one stream: everything happens in
the order of the calls.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastdl import _core
from fastdl._array import Array, as_dtype

__all__ = ["Device", "Status", "is_available", "pinned_empty", "status", "stream", "synchronize"]


class Device(NamedTuple):
    """A GPU: name, compute capability, multiprocessors and bytes of memory."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    memory_bytes: int


class Status(NamedTuple):
    """What there is of CUDA on this machine and in this build.

    Attributes
    ----------
    built : whether the CUDA kernels are there and can be opened
    library : their file
    architectures : what they were compiled for, such as ``"80-real 90-real 120"``
    toolkit, driver : the CUDA version of the build, and the newest that the driver runs; or ""
    devices : the GPUs that the driver shows
    problem : why ``device="cuda"`` cannot be used, None if it can
    """

    built: bool
    library: str
    architectures: str
    toolkit: str
    driver: str
    devices: tuple[Device, ...]
    problem: str | None

    def __str__(self) -> str:
        """Describe it in one line."""
        if not self.built:
            return f"not available: {self.problem}"
        driver = f"driver for CUDA {self.driver}" if self.driver else "no driver"
        devices = ", ".join(
            f"{d.name} (sm_{d.capability[0]}{d.capability[1]}, {d.memory_bytes >> 30} GiB)"
            for d in self.devices
        )
        built = f"built by CUDA {self.toolkit} for {self.architectures}"
        found = devices or f"not available: {self.problem}"
        return f"{found}; {driver}; {built}"


def status() -> Status:
    """Return what there is of CUDA; opens the library of the kernels."""
    found = _core.cuda_status()
    devices = tuple(Device(**d) for d in found["devices"])
    return Status(
        found["built"],
        found["library"],
        found.get("architectures", ""),
        _version(found.get("toolkit", 0)),
        _version(found.get("driver", 0)),
        devices,
        found["problem"],
    )


def is_available() -> bool:
    """Return whether ``device="cuda"`` can be used; `status` says why not."""
    return status().problem is None


def synchronize(device: str = "cuda") -> None:
    """Wait until the device has done everything.

    Raises
    ------
    ValueError
        If a kernel found a value that it could not use, such as a label out of range: the text
        names the operation.  Reading values waits likewise, and raises the same.
    RuntimeError
        If the device cannot be used, or an earlier call has failed.
    """
    _core.synchronize(device)


def stream(device: str = "cuda") -> int:
    """Return the handle of the stream in which everything happens (a ``cudaStream_t``)."""
    return _core.stream(device)


def pinned_empty(
    shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float32, *, device: str = "cuda"
) -> Array:
    """Return an uninitialised ndarray in pinned memory: copies from it are fast and can overlap.

    Parameters
    ----------
    shape : int or tuple of int
    dtype : dtype, also "bfloat16"

    Raises
    ------
    RuntimeError
        If there is no GPU, or not so much memory.

    Examples
    --------
    >>> batch = fastdl.cuda.pinned_empty((256, 784))
    >>> batch[:] = X[rows]
    >>> x = fastdl.tensor(batch, device="cuda")
    """
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    return _core.pinned_empty(device, sizes, as_dtype(dtype))


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}" if number else ""
