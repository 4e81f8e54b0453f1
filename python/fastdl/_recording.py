"""One recorded program with the Python-side state it needs and leaves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fastdl import _core
from fastdl._array import Array, contiguous, describe
from fastdl.errors import CaptureError, user_line
from fastdl.tape import Recorder, layout, mode
from fastdl.tensor import Tensor, wrap

_NOTHING = object()


class Place(NamedTuple):
    """Stands for a result: its number, and whether it was a Tensor."""

    number: int
    is_tensor: bool


class Recording:
    """One program: its guards, the state it leaves, and the form of its result."""

    def __init__(self, arrays: list[Array], checks: int = 0, state_guards: bool = True) -> None:
        #: False: it stands for one state of Python, whatever the state is when it is replayed.
        self._state_guards = state_guards
        #: How many replays are still to be compared with the function.
        self.checks = checks
        self.inputs = [np.array(a, order="C") for a in arrays]
        self.program = _core.Program(self.inputs)
        self.replay: Callable[..., Any]
        self.parts: tuple[Any, ...] = ()
        #: Whether a replay leaves the state that the next one needs.
        self.steady = False
        self.finals: list[tuple[Any, str, Any]] = []
        self._constants: list[Array] = []
        self.form: Any = None
        self._guards: list[tuple[Any, str, Any]] = []
        #: Whether the result is one Tensor.
        self.single = False

    def record(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run ``fn`` on the private inputs and keep what it did; after an error, undo it."""
        recorder = Recorder()
        mode.recorder = recorder
        try:
            self.program.begin(user_line)
            try:
                arrays, copies = self._call(fn, args, kwargs)
                guards, finals = recorder.guards, recorder.finals()
                recorder.forget_local()
                frozen = self.program.finish(arrays)
                if frozen:
                    raise _frozen_error(*frozen[0])
            except BaseException:
                if _core.recording():
                    self.program.abort()
                recorder.undo()
                raise
        finally:
            mode.recorder = None
        if self._state_guards:
            guards = [*guards, (mode, "enabled", mode.enabled)]
        else:
            guards, finals = [], []
        guards.append((layout, "version", layout.version))
        # Attributes that the guards find as the step leaves them need not be set again.
        known = {(id(obj), name): value for obj, name, value in guards}
        changed = [s for s in finals if known.get((id(s[0]), s[1]), _NOTHING) is not s[2]]
        self._constants, self.finals = recorder.constants, finals
        self.steady = not any((id(obj), name) in known for obj, name, _ in changed)
        self._guards = guards
        #: What `_core` needs to replay this.
        self.parts = (self.program, guards, changed)
        self.replay = _core.make_replay(*self.parts)
        return self.result(copies)

    def _call(
        self, fn: Callable[..., Any], args: Any, kwargs: Any
    ) -> tuple[list[Array], list[Array]]:
        """Run ``fn``; return the arrays of its result, held by nobody else, and copies of them."""
        inputs = iter(self.inputs)
        wrapped = functools.partial(_next_tensor, inputs)
        arrays: list[Array] = []
        result = fn(*rebuilt(args, wrapped), **rebuilt(kwargs, wrapped))
        self.form = rebuilt(result, functools.partial(_placed, arrays))
        self.single = isinstance(self.form, Place) and self.form.is_tensor
        return arrays, [a.copy() for a in arrays]

    def holds(self) -> bool:
        """Return whether the Python-side state is the one this was recorded in."""
        for obj, name, value in self._guards:  # noqa: SIM110  (faster than all())
            if getattr(obj, name) is not value:
                return False
        return True

    def leave(self) -> None:
        """Set the Python-side state to what a replay leaves."""
        for obj, name, value in self.finals:
            setattr(obj, name, value)

    def result(self, arrays: list[Array]) -> Any:
        """Return what ``fn`` returned, made of these arrays."""
        return filled(self.form, arrays)

    def result_of(self, output: Any) -> Any:
        """Return what ``fn`` would, made of what `replay` returned."""
        if self.single:
            return wrap(output)
        return filled(self.form, output if isinstance(output, list) else [output])

    def arrays_of(self, output: Any) -> Any:
        """Return the same with arrays for Tensors."""
        return filled(self.form, output if isinstance(output, list) else [output], tensors=False)


def rebuilt(x: Any, change: Callable[[Any], Any]) -> Any:
    """Return ``x`` with every Tensor and array in it changed."""
    if isinstance(x, Tensor | np.ndarray):
        return change(x)
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*[rebuilt(value, change) for value in x])
    if isinstance(x, tuple | list):
        return type(x)([rebuilt(value, change) for value in x])
    if isinstance(x, dict):
        return {name: rebuilt(value, change) for name, value in x.items()}
    return x


def filled(x: Any, arrays: list[Any], tensors: bool = True) -> Any:
    """Return the form of a result with arrays, or what they stand for, in their places."""
    if isinstance(x, Place):
        return wrap(arrays[x.number]) if tensors and x.is_tensor else arrays[x.number]
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*[filled(value, arrays, tensors) for value in x])
    if isinstance(x, tuple | list):
        return type(x)([filled(value, arrays, tensors) for value in x])
    if isinstance(x, dict):
        return {name: filled(value, arrays, tensors) for name, value in x.items()}
    return x


def _placed(arrays: list[Array], x: Tensor | Array) -> Place:
    arrays.append(x._array if isinstance(x, Tensor) else contiguous(x))
    return Place(len(arrays) - 1, isinstance(x, Tensor))


def as_tensor(x: Tensor | Array) -> Tensor:
    """Return ``x`` as a Tensor."""
    return x if isinstance(x, Tensor) else Tensor(x)


def _next_tensor(inputs: Iterator[Array], _: Any) -> Tensor:
    return Tensor(next(inputs))


def _frozen_error(array: Array, where: str) -> CaptureError:
    return CaptureError(
        f"capture: {where} uses an array {describe(array)} that NumPy made inside the captured "
        "function: every replay would see the same values; make it outside, pass it as an "
        "argument, or use fastdl.tensor(...) for constants"
    )
