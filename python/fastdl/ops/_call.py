"""The boundary of every operation: read arguments, make or check outputs, wrap results."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdl._array import ARRAYS, ONES, Array, contiguous, describe, empty
from fastdl.tape import Backward, Node, mode
from fastdl.tensor import ArrayLike, Tensor, new_tensor


def array_of(op: str, name: str, x: ArrayLike) -> Array:
    """Return the contiguous array of an argument of an operation.

    Raises
    ------
    TypeError
        If ``x`` is neither a Tensor nor an ndarray.
    """
    if isinstance(x, Tensor):
        return x._array
    if isinstance(x, np.ndarray):
        return x if x.flags.carray else contiguous(x)
    raise TypeError(
        f"{op}: {name} must be an ndarray or a Tensor, got {type(x).__name__}; "
        "use fastdl.tensor(...) or np.asarray(...)"
    )


def output(
    op: str,
    out: ArrayLike | None,
    like: Array,
    shape: tuple[int, ...],
    inputs: tuple[object, ...] = (),
) -> Array:
    """Return ``out`` as an array if it fits, or a new one if it is None: of the dtype of ``like``.

    Raises
    ------
    ValueError, TypeError
        If ``out`` has another shape or dtype, is read-only, or is not C-contiguous.
    RuntimeError
        If ``out`` is given and one of ``inputs`` wants a gradient.
    """
    dtype = like.dtype
    if out is None:
        return empty(like, shape, dtype)
    if mode.enabled and any(wants_grad(x) is not None for x in (out, *inputs)):
        raise RuntimeError(
            f"{op}: out must be None where a gradient is recorded, got an array; "
            "use it under fastdl.no_grad()"
        )
    y = out._array if isinstance(out, Tensor) else out
    if isinstance(y, ARRAYS) and y.dtype == dtype and y.shape == shape and y.flags.carray:
        if mode.recorder is not None:
            mode.recorder.overwrites(y)
        return y
    wanted = f"{op}: out must be {dtype}({', '.join(map(str, shape))})"
    if not isinstance(y, ARRAYS):
        raise TypeError(f"{wanted}, got {type(out).__name__}")
    if y.dtype != dtype:
        raise TypeError(f"{wanted}, got {describe(y)}")
    if y.shape != shape:
        raise ValueError(f"{wanted}, got {describe(y)}")
    raise ValueError(f"{wanted}, C-contiguous and writeable, got another layout")


def wants_grad(x: object) -> Tensor | None:
    """Return ``x`` if it is a tensor that wants a gradient, else None."""
    return x if isinstance(x, Tensor) and x._requires_grad else None


def is_one(dY: Array) -> bool:
    """Return whether ``dY`` is the 1 that a backward pass from a 0-d loss starts with."""
    return dY is ONES.get(dY.dtype if type(dY) is np.ndarray else (dY.dtype, dY.device))


def result(
    y: Array,
    inputs: tuple[Tensor | None, ...],
    backward: Backward,
    saved: tuple[Any, ...],
    activation: str = "none",
) -> Tensor:
    """Wrap the result of an operation, with a node if an input wants a gradient.

    ``activation`` names the one that ``y`` is the output of, if ``backward`` can leave out its
    derivative (see `Pass.must_differentiate`).
    """
    t = new_tensor(Tensor)
    t._array = y
    t._grad = t._home = None
    for x in inputs:
        if x is not None and mode.enabled:
            t._requires_grad = True
            t._node = Node(inputs, backward, saved, activation)
            return t
    t._requires_grad = False
    t._node = None
    return t
