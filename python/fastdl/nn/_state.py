"""Loading a state dict: every check first, then every change; and converting a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastdl import _core
from fastdl._array import (
    Array,
    assign,
    cast,
    compute_dtype,
    contiguous,
    describe,
    is_float,
    to_device,
)
from fastdl.errors import capture_error
from fastdl.nn.parameter import Parameter
from fastdl.tape import layout_changed, mode, parameters_written
from fastdl.tensor import ArrayLike, Tensor, wrap

if TYPE_CHECKING:
    from fastdl.nn.module import Module

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
    parameters_written()


def convert(module: Module, device: str | None, dtype: np.dtype[Any] | None) -> None:
    """Do what `Module.to` does, with the arrays of ``module`` and all below it."""
    steps = [] if device is None else [(mover(device),) * 2]
    if dtype is not None:
        steps.append((caster(dtype), caster(compute_dtype(dtype))))
    for every, unrounded in steps:
        for m in module.modules():
            _convert_own(m, unrounded if m._in_float32 else every)
    layout_changed()


def _convert_own(m: Module, new: Callable[[Array], Array]) -> None:
    for name, value in list(vars(m).items()):
        if isinstance(value, Parameter):
            value._array = new(value._array)
            value._grad = value._home = None
        elif name in m._buffers and value is not None:
            array = new(value._array if isinstance(value, Tensor) else value)
            setattr(m, name, array if isinstance(array, np.ndarray) else wrap(array))


def caster(dtype: np.dtype[Any]) -> Callable[[Array], Array]:
    """Return what turns float arrays into ``dtype``."""
    return lambda x: cast(contiguous(x), dtype) if is_float(x.dtype) else x


def mover(name: str) -> Callable[[Array], Array]:
    """Return what moves arrays to a device, which is tried before anything has been moved."""
    device = _core.device_named(name)
    if device != "cpu":
        _core.empty_on(device, (), np.dtype(np.float32))
    return lambda x: to_device(x, device)


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
