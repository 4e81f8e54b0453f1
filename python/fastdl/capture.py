"""Record a function of arrays once, then replay it as one native call.

While a function is recorded it runs for real; every kernel call of the thread goes into a program.
What may differ between calls is handled in three ways: arrays that change (inputs, learning rates,
step counts, random counters) are read through pointers; shapes, dtypes and plain arguments select a
program; Python-side state that the function used (training flags, which gradients are fresh) is a
guard of the program, and another state records another program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

from fastdl import _core
from fastdl._array import Array, contiguous, copy
from fastdl.tape import Recorder, layout, mode
from fastdl.tensor import Tensor, wrap

_R = TypeVar("_R")

_MAX_PROGRAMS = 64


class CapturedStep(Generic[_R]):
    """A function that is recorded on its first call and replayed natively on later ones.

    Made by `capture`.  ``print(step)`` lists the recorded kernels.
    """

    def __init__(self, fn: Callable[..., _R]) -> None:
        functools.update_wrapper(self, fn)
        self._fn = fn
        self._recordings: dict[Any, list[_Recording]] = {}
        self._layout = layout.version

    def __call__(self, *args: Any, **kwargs: Any) -> _R:
        """Call the function: replay it if it was recorded for such arguments, else record it."""
        if mode.recorder is not None:
            return self._fn(*_rebuilt(args, _as_tensor), **_rebuilt(kwargs, _as_tensor))
        arrays: list[Array] = []
        key = mode.enabled, _flatten(args, arrays), _flatten(kwargs, arrays) if kwargs else None
        if self._layout != layout.version:
            self._recordings.clear()
            self._layout = layout.version
        for recording in self._recordings.get(key, ()):
            if recording.holds():
                result: _R = recording.replay(arrays)
                return result
        return self._record(key, args, kwargs, arrays)

    def _record(self, key: Any, args: Any, kwargs: Any, arrays: list[Array]) -> _R:
        recording = _Recording([np.array(a, order="C") for a in arrays])
        result: _R = recording.record(self._fn, args, kwargs)
        if sum(map(len, self._recordings.values())) >= _MAX_PROGRAMS:
            self._drop_oldest()
        self._recordings.setdefault(key, []).append(recording)
        return result

    def _drop_oldest(self) -> None:
        key = next(iter(self._recordings))
        self._recordings[key].pop(0)
        if not self._recordings[key]:
            del self._recordings[key]

    def programs(self) -> list[_core.Program]:
        """Return the recorded programs, oldest first."""
        return [r.program for found in self._recordings.values() for r in found]

    def __repr__(self) -> str:
        name = getattr(self._fn, "__qualname__", repr(self._fn))
        return f"<captured {name}, {len(self.programs())} recorded>"

    def __str__(self) -> str:
        return "\n".join([repr(self), *map(_listing, self.programs())])


def capture(fn: Callable[..., _R]) -> CapturedStep[_R]:
    """Return a function like ``fn`` that replays its kernels as one native call.

    Parameters
    ----------
    fn : callable
        Takes ndarrays, Tensors, tuples, lists and dicts of them, and plain hashable values; inside,
        arrays are Tensors.  Typically a whole training step: zero_grad, forward, backward, step.

    Returns
    -------
    step : CapturedStep
        Called like ``fn``; Tensors and arrays in the result are copies, off the tape.  A call with
        other shapes, dtypes, plain values or modes records another program.

    Raises
    ------
    CaptureError
        At the first call, if ``fn`` reads a value, branches on one, or changes options or seeds: a
        recording could not repeat that.  The text names the line.
    ValueError
        If an argument requires a gradient.

    Notes
    -----
    Other effects of ``fn`` on Python objects (appending to a list, printing) happen when it is
    recorded, not when it is replayed.

    Examples
    --------
    >>> @fastdl.capture
    ... def step(X, y):
    ...     optimizer.zero_grad()
    ...     loss = loss_fn(model(X), y)
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    """
    return CapturedStep(fn)


class _Recording:
    """One program with its guards, the state it leaves, and its result."""

    def __init__(self, inputs: list[Array]) -> None:
        self._inputs = inputs
        self.program = _core.Program(inputs)
        self._guards: list[tuple[Any, str, Any]] = []
        self._finals: list[tuple[Any, str, Any]] = []
        self._result: Any = None

    def record(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run ``fn`` on the private inputs and keep what it did."""
        recorder = Recorder()
        mode.recorder = recorder
        try:
            inputs = iter(self._inputs)
            wrap = functools.partial(_next_tensor, inputs)
            args, kwargs = _rebuilt(args, wrap), _rebuilt(kwargs, wrap)
            self.program.begin()
            try:
                self._result = _rebuilt(fn(*args, **kwargs), self._result_buffer)
            finally:
                self.program.end()
        finally:
            mode.recorder = None
        self._guards = recorder.guards
        self._finals = recorder.finals()
        return _rebuilt(self._result, _copied)

    def _result_buffer(self, x: Tensor | Array) -> Tensor | Array:
        """Return memory of the program that holds the result after every replay."""
        array = x._array if isinstance(x, Tensor) else x
        if any(np.may_share_memory(array, a) for a in self._inputs):
            array = copy(array)
        return Tensor(array) if isinstance(x, Tensor) else array

    def holds(self) -> bool:
        """Return whether the Python-side state is the one this was recorded in."""
        for obj, name, value in self._guards:  # noqa: SIM110  (faster than all())
            if getattr(obj, name) is not value:
                return False
        return True

    def replay(self, arrays: list[Array]) -> Any:
        """Run the program on other inputs."""
        self.program.run(arrays)
        for obj, name, value in self._finals:
            setattr(obj, name, value)
        return _rebuilt(self._result, _copied)


def _flatten(x: Any, arrays: list[Array]) -> Any:
    """Append the arrays in ``x`` to ``arrays``; return what selects a program, hashable."""
    if isinstance(x, Tensor):
        if x._requires_grad and mode.enabled:
            raise ValueError(
                "capture: arguments must not require gradients, got one that does; pass .detach() "
                "and set requires_grad inside"
            )
        x = x._array
    if isinstance(x, np.ndarray):
        arrays.append(x if x.flags.carray else contiguous(x))
        return x.shape, x.dtype
    if isinstance(x, tuple | list):
        return type(x), tuple([_flatten(value, arrays) for value in x])
    if isinstance(x, dict):
        return dict, tuple([(name, _flatten(value, arrays)) for name, value in x.items()])
    try:
        hash(x)
    except TypeError:
        raise TypeError(
            "capture: arguments must be arrays, tuples, lists, dicts or hashable, got "
            f"{type(x).__name__}"
        ) from None
    return type(x), x


def _rebuilt(x: Any, change: Callable[[Any], Any]) -> Any:
    """Return ``x`` with every Tensor and array in it changed."""
    if isinstance(x, Tensor | np.ndarray):
        return change(x)
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*[_rebuilt(value, change) for value in x])
    if isinstance(x, tuple | list):
        return type(x)([_rebuilt(value, change) for value in x])
    if isinstance(x, dict):
        return {name: _rebuilt(value, change) for name, value in x.items()}
    return x


def _as_tensor(x: Tensor | Array) -> Tensor:
    return x if isinstance(x, Tensor) else Tensor(x)


def _next_tensor(inputs: Any, _: Any) -> Tensor:
    return Tensor(next(inputs))


def _copied(x: Tensor | Array) -> Tensor | Array:
    return wrap(x._array.copy()) if isinstance(x, Tensor) else x.copy()


def _listing(program: _core.Program) -> str:
    calls = program.calls()
    lines = [
        f"{i:4}  {c['name']:24} {c['bytes']:>12,} B {c['flops']:>14,.0f} flop  {c['args']}"
        for i, c in enumerate(calls)
    ]
    total = f"{sum(c['bytes'] for c in calls):,} B, {sum(c['flops'] for c in calls):,.0f} flop"
    return "\n".join([f"program of {len(calls)} kernels: {total}", *lines])
