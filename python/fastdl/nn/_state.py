"""Loading a state dict: every check first, then every change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fastdl import _core
from fastdl._array import Array, assign, describe, on_host, to_device
from fastdl.errors import capture_error
from fastdl.tape import mode
from fastdl.tensor import ArrayLike, Tensor

Entry: TypeAlias = Tensor | Array


def check_state(
    own: Mapping[str, Entry],
    given: Mapping[str, ArrayLike],
    missing: list[str],
    unexpected: list[str],
    strict: bool,
) -> dict[str, Array]:
    """Return the arrays to load, or raise without a change."""
    if mode.recorder is not None:
        raise capture_error("loads a state dict", "load it outside of the captured function")
    if strict and (missing or unexpected):
        raise ValueError(_key_error(missing, unexpected))
    return {name: _checked(name, own[name], given[name]) for name in own if name in given}


def apply_state(own: Mapping[str, Entry], values: Mapping[str, Array]) -> None:
    """Copy checked values in; parameters and buffers stay where they are in memory."""
    for name, value in values.items():
        target = own[name]
        assign(target._array if isinstance(target, Tensor) else target, value)


def converter(target: npt.DTypeLike) -> Callable[[Array], Array]:
    """Return what `Module.to` does with every array: see there."""
    try:
        dtype = np.dtype(target)
    except TypeError:
        if not isinstance(target, str):
            raise
        device = _core.device_named(target)
        if device != "cpu":
            _core.empty_on(device, (), np.dtype(np.float32))  # fails before anything has been moved
        return lambda x: to_device(x, device)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"to: dtype must be float32 or float64, got {dtype}")
    return lambda x: to_device(on_host(x).astype(dtype), x.device) if x.dtype.kind == "f" else x


def _key_error(missing: list[str], unexpected: list[str]) -> str:
    parts = [f"missing {missing}" if missing else "", f"unexpected {unexpected}"]
    text = "; ".join(p for p in parts[: 1 + bool(unexpected)] if p)
    remedy = "pass strict=False to load what fits"
    if any(m.rpartition(".")[2] == "W" for m in missing) and any(
        u.rpartition(".")[2] == "weight" for u in unexpected
    ):
        remedy = "torch's Linear has weight (out, in) and bias: pass W = weight.T and b = bias"
    return f"load_state_dict: keys must be those of the module, got {text}; {remedy}"


def _checked(name: str, own: Entry, given: ArrayLike) -> Array:
    target = own._array if isinstance(own, Tensor) else own
    value = given._values("a copy") if isinstance(given, Tensor) else np.asarray(given)
    wanted = f"load_state_dict: {name} must be {describe(target)}, got {describe(value)}"
    if value.shape != target.shape:
        raise ValueError(f"{wanted}; build the model with the sizes of the saved one")
    if value.dtype != target.dtype:
        raise TypeError(f"{wanted}; convert the model with .to({value.dtype}) or the values")
    return value
