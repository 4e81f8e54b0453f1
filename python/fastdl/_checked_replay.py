"""A replay beside the plain function, compared bit for bit: ``capture(fn, check=True)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdl._array import Array
from fastdl._recording import Recording, as_tensor, rebuilt
from fastdl.errors import CaptureError
from fastdl.tensor import Tensor


def checked_replay(
    recording: Recording, fn: Callable[..., Any], args: Any, kwargs: Any, arrays: list[Array]
) -> Any:
    """Replay, run ``fn`` from the same state, compare; leave everything as the replay did.

    Raises
    ------
    CaptureError
        If a result or a piece of state differs in any bit.
    """
    program = recording.program
    attributes = [(obj, name, getattr(obj, name)) for obj, name, _ in recording.finals]
    before = program.snapshot()
    output = recording.replay(*arrays)
    after, left = program.snapshot(), _values(recording)
    program.restore(before)
    for obj, name, value in attributes:
        setattr(obj, name, value)
    try:
        expected = fn(*rebuilt(args, _apart), **rebuilt(kwargs, _apart))
        results = _arrays(expected)
        state, wanted = program.snapshot(), _values(recording)
    finally:
        program.restore(after)
        recording.leave()
    got = recording.result_of(output)
    _compare([f"result {i}" for i in range(len(results))], _arrays(got), results)
    names = [f".{name} of {type(obj).__name__}" for obj, name, _ in recording.finals]
    _compare(names, left, wanted)
    own = [v for _, _, v in recording.finals if isinstance(v, np.ndarray)]
    for (address, label), a, b in zip(program.written(), after, state, strict=True):
        if a != b and not any(_holds(array, address) for array in own):
            raise _difference(f"what {label} writes")
    return got


def _apart(x: Tensor | Array) -> Tensor:
    return Tensor(as_tensor(x)._array.copy())


def _arrays(x: Any) -> list[Array]:
    found: list[Array] = []
    rebuilt(x, lambda a: found.append(as_tensor(a)._array))
    return found


def _values(recording: Recording) -> list[Any]:
    """Copies of the attributes that a replay leaves."""
    now = [getattr(obj, name) for obj, name, _ in recording.finals]
    return [v.copy() if isinstance(v, np.ndarray) else v for v in now]


def _compare(names: list[str], got: list[Any], wanted: list[Any]) -> None:
    for name, a, b in zip(names, got, wanted, strict=True):
        same = a.tobytes() == b.tobytes() if isinstance(a, np.ndarray) and b is not None else a is b
        if not same:
            raise _difference(name)


def _holds(array: Array, address: int) -> bool:
    start = array.ctypes.data
    return start <= address < start + array.nbytes


def _difference(what: str) -> CaptureError:
    return CaptureError(
        f"capture: check: {what} differs between the replay and the plain function; does the "
        "function depend on something that is neither an argument nor an array?"
    )
