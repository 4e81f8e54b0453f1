"""Tensors from device to device."""

from __future__ import annotations

from fastdl import _core
from fastdl._array import Array, to_device
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


def _backward(p: Pass, node: Node, dY: Array) -> None:
    (X,) = node.inputs
    assert X is not None
    p.add(X, to_device(dY, X._array.device))
