"""Tensors from device to device and from dtype to dtype."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdl import _core
from fastdl._array import Array, cast, is_float, to_device
from fastdl.errors import capture_error
from fastdl.ops._call import result, wants_grad
from fastdl.tape import Node, Pass, mode
from fastdl.tensor import Tensor


def moved(X: Tensor, device: str, non_blocking: bool) -> Tensor:
    """Return ``X`` if it is on the device, else a copy there; see `Tensor.to`."""
    name = _core.device_named(device)
    if name == X.device:
        return X
    if mode.recorder is not None:
        raise capture_error("moves a tensor", "move it outside of the captured function")
    y = to_device(X._array, name, non_blocking)
    return result(y, (wants_grad(X),), _backward, ())


def converted(X: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """Return ``X`` if it has the float dtype, else a copy in it; see `Tensor.to`."""
    if dtype == X.dtype:
        return X
    if not is_float(X.dtype):
        raise TypeError(f"to: tensor must be of a float dtype to be converted, got {X.dtype}")
    return result(cast(X._array, dtype), (wants_grad(X),), _cast_backward, ())


def _cast_backward(p: Pass, node: Node, dY: Array) -> None:
    (X,) = node.inputs
    assert X is not None
    p.add(X, cast(dY, X.dtype))


def _backward(p: Pass, node: Node, dY: Array) -> None:
    (X,) = node.inputs
    assert X is not None
    p.add(X, to_device(dY, X._array.device))
