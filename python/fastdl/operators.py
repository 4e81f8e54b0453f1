"""What Tensors have as operators and methods: the operations of `fastdl.ops` under another name.

`fastdl.ops` is built on `Tensor`, so it is looked up when an operator is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

import fastdl
from fastdl._array import destination

if TYPE_CHECKING:
    import numpy.typing as npt

    from fastdl._array import Array
    from fastdl.ops._shapes import Dim
    from fastdl.tensor import Tensor

Operand: TypeAlias = "Tensor | Array | float"


def _fits(other: object) -> bool:
    """Whether it is an operand; for others Python tries their own operator, then complains."""
    numbers = (float, int, np.ndarray, np.floating, np.integer)
    return isinstance(other, (fastdl.Tensor, *numbers))


def add(self: Tensor, other: Operand) -> Tensor:
    """Return ``self + other``; see `fastdl.ops.add`."""
    return _tensor(fastdl.ops.add(self, other)) if _fits(other) else NotImplemented


def sub(self: Tensor, other: Operand) -> Tensor:
    """Return ``self - other``; see `fastdl.ops.sub`."""
    return _tensor(fastdl.ops.sub(self, other)) if _fits(other) else NotImplemented


def rsub(self: Tensor, other: Operand) -> Tensor:
    """Return ``other - self``; see `fastdl.ops.sub`."""
    return _tensor(fastdl.ops.sub(other, self)) if _fits(other) else NotImplemented


def mul(self: Tensor, other: Operand) -> Tensor:
    """Return ``self * other``; see `fastdl.ops.mul`."""
    return _tensor(fastdl.ops.mul(self, other)) if _fits(other) else NotImplemented


def neg(self: Tensor) -> Tensor:
    """Return ``-self``."""
    return _tensor(fastdl.ops.mul(self, -1))


def matmul(self: Tensor, other: Tensor | Array) -> Tensor:
    """Return the matrix product ``self @ other``, where ``other`` is a matrix."""
    return _tensor(fastdl.ops.affine(self, other)) if _fits(other) else NotImplemented


def rmatmul(self: Tensor, other: Array) -> Tensor:
    """Return the matrix product ``other @ self``, where ``self`` is a matrix."""
    return _tensor(fastdl.ops.affine(other, self)) if _fits(other) else NotImplemented


def getitem(self: Tensor, key: Any) -> Tensor:
    """Return ``self[key]``; see `fastdl.ops.getitem`."""
    return _tensor(fastdl.ops.getitem(self, key))


def sum(self: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:  # noqa: A001
    """Return the sum over ``dim``; see `fastdl.ops.sum`."""
    return _tensor(fastdl.ops.sum(self, dim, keepdim))


def mean(self: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Return the mean over ``dim``; see `fastdl.ops.mean`."""
    return _tensor(fastdl.ops.mean(self, dim, keepdim))


def amax(self: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Return the largest element over ``dim``; see `fastdl.ops.amax`."""
    return _tensor(fastdl.ops.amax(self, dim, keepdim))


def log_softmax(self: Tensor, dim: int = -1) -> Tensor:
    """Return the logarithm of the softmax over ``dim``; see `fastdl.ops.log_softmax`."""
    return _tensor(fastdl.ops.log_softmax(self, dim))


def gather(self: Tensor, dim: int, index: Tensor | Array) -> Tensor:
    """Return the elements that ``index`` picks along ``dim``; see `fastdl.ops.gather`."""
    return _tensor(fastdl.ops.gather(self, dim, index))


def to(
    self: Tensor,
    target: npt.DTypeLike | None = None,
    dtype: npt.DTypeLike | None = None,
    *,
    device: str | None = None,
    non_blocking: bool = False,
) -> Tensor:
    """Return the tensor on a device, in a float dtype: itself if it is, else a copy, on the tape.

    Parameters
    ----------
    target : "cpu", "cuda", or a float dtype
        ``device`` or ``dtype``, whichever it names.
    dtype : float32, float64 or bfloat16, optional
        Rounds to nearest even.
    device : "cpu" or "cuda", optional
    non_blocking : bool
        Do not wait for the copy from pinned memory (`fastdl.cuda.pinned_empty`), which must then
        stay as it is until `fastdl.cuda.synchronize`.

    Raises
    ------
    RuntimeError
        If the device cannot be used; the text says what is missing.
    ValueError
        If there is no such device.
    TypeError
        If ``dtype`` is another one, or the tensor's is; if neither is given, or one twice.
    """
    from fastdl.ops._device import converted, moved

    device, wanted = destination(target, dtype, device)
    there = self if device is None else moved(self, device, non_blocking)
    return there if wanted is None else converted(there, wanted)


def cpu(self: Tensor) -> Tensor:
    """Return the tensor on the CPU; see `to`."""
    return to(self, "cpu")


def _tensor(x: Tensor | Array) -> Tensor:
    return cast("Tensor", x)
