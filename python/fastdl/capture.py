"""Record a function of arrays once, then replay it as one native call.

While a function is recorded it runs for real; every kernel call of the thread goes into a program.
What may differ between calls is handled in three ways: arrays that change (inputs, learning rates,
step counts, random counters) are read through pointers; shapes, dtypes and plain arguments select a
program; Python-side state that the function used (training flags, which gradients are fresh) is a
guard of the program, and another state records another program.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np

from fastdl import _core
from fastdl._array import Array, contiguous
from fastdl._checked_replay import checked_replay
from fastdl._listing import listing
from fastdl._recording import Recording, as_tensor, rebuilt
from fastdl._run import RunOptions, RunState, run_steps
from fastdl.tape import layout, mode
from fastdl.tensor import Tensor

if TYPE_CHECKING:
    from fastdl._replicas import CapturedReplicas

_R = TypeVar("_R")

_CHECKED_CALLS = 3


class CapturedStep(Generic[_R]):
    """A function that is recorded on its first call and replayed natively on later ones.

    Made by `capture`.  ``print(step)`` is a table of the recorded kernels: bytes, flop, and how
    long they took (every 32nd replay is timed).  Calls from several threads take turns, except for
    programs that change nothing but their result.
    """

    def __init__(
        self,
        fn: Callable[..., _R],
        check: bool = False,
        max_shapes: int = 64,
        state_guards: bool = True,
    ) -> None:
        functools.update_wrapper(self, fn)
        self._state_guards = state_guards
        self._fn = fn
        self._checks = _CHECKED_CALLS if check else 0
        self._max_shapes = max_shapes
        self._recordings: dict[Any, list[Recording]] = {}
        self._layout = layout.version
        self._recording_lock = threading.RLock()
        self.last: Recording | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> _R:
        """Call the function: replay it if it was recorded for such arguments, else record it."""
        last = self.last
        if last is not None and not kwargs:
            output = last.replay(*args)
            if output is not NotImplemented:
                result: _R = last.result_of(output)
                return result
        if mode.recorder is not None:
            return self._fn(*rebuilt(args, as_tensor), **rebuilt(kwargs, as_tensor))
        arrays: list[Array] = []
        key = _flatten(args, arrays), _flatten(kwargs, arrays) if kwargs else None
        return self._call(key, args, kwargs, arrays)

    def _call(self, key: Any, args: Any, kwargs: Any, arrays: list[Array]) -> _R:
        recording = self.find(key)
        if recording is None:
            with self._recording_lock:  # another thread may have been recording just this
                recording = self.find(key)
                if recording is None:
                    return self._record(key, args, kwargs, arrays)
        if recording.checks:
            recording.checks -= 1
            checked: _R = checked_replay(recording, self._fn, args, kwargs, arrays)
            return checked
        output = recording.replay(*arrays)
        if output is NotImplemented:  # another thread has just changed the state
            with self._recording_lock:
                return self._record(key, args, kwargs, arrays)
        if not kwargs and all(isinstance(a, np.ndarray | Tensor) for a in args):
            self.last = recording
        result: _R = recording.result_of(output)
        return result

    def find(self, key: Any) -> Recording | None:
        """Return the recording for such arguments in the present state, if there is one."""
        if self._layout != layout.version:
            self._recordings.clear()
            self._layout = layout.version
        for recording in self._recordings.get(key, ()):
            if recording.holds():
                return recording
        return None

    def _record(self, key: Any, args: Any, kwargs: Any, arrays: list[Array]) -> _R:
        recording = Recording(arrays, self._checks, self._state_guards)
        result: _R = recording.record(self._fn, args, kwargs)
        if sum(map(len, self._recordings.values())) >= self._max_shapes:
            self._drop_oldest()
        self._recordings.setdefault(key, []).append(recording)
        return result

    def _drop_oldest(self) -> None:
        key = next(iter(self._recordings))
        self._recordings[key].pop(0)
        if not self._recordings[key]:
            del self._recordings[key]

    def run(
        self,
        *arrays: Any,
        batch_size: int,
        epochs: int | None = None,
        steps: int | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        rng: Any = None,
        scale: float | None = None,
        schedules: Iterable[tuple[Any, Any]] = (),
        callback: Callable[[int, Any], Any] | None = None,
        every: int | None = None,
        resume: RunState | None = None,
    ) -> Any:
        """Call the function on batches of rows, many steps in one native call.

        The same bits as a Python loop over the batches.  Python code runs only between epochs and
        for ``callback``; the interpreter lock is released meanwhile.

        Parameters
        ----------
        *arrays : (N, ...) arrays
            One for each argument of the function; step t gets ``batch_size`` rows of each.
        batch_size : int
        epochs, steps : int
            How long: passes over all rows (default 1), or a number of steps.
        shuffle : bool
            Draw a new order of the rows for every epoch.
        drop_last : bool
            Leave out the smaller batch at the end of an epoch.
        rng : fastdl.Generator or numpy.random.Generator, optional
            Draws the orders; default: the default generator.
        scale : float, optional
            uint8 arrays are handed over as float32, times this number (1/255 for images).
        schedules : pairs (group, values)
            Learning rates for an entry of an optimizer's ``param_groups``, one for each step of
            this run.
        callback : callable, optional
            ``callback(n, results)`` after every ``every`` steps (default: every epoch): the steps
            done so far, and the results of those since the last call.  False ends the run.
        every : int, optional
        resume : RunState, optional
            Continue an interrupted run; the other arguments must be what they were.

        Returns
        -------
        losses : what the function returns, stacked: (steps, ...) arrays
            Results whose shape differs between steps (that of a smaller last batch) are lists.

        Raises
        ------
        fastdl.Interrupted
            On Ctrl-C, within a step; a KeyboardInterrupt with the results so far in ``.results``
            and the place to go on in ``.resume``.  The model is as after the last whole step.
        ValueError, TypeError
            If an argument does not fit; nothing has been done then.  A bad label raises before the
            step whose batch holds it; the steps before are done.
        """
        options = RunOptions(
            batch_size, epochs, steps, shuffle, drop_last, rng, scale, schedules, callback, every
        )
        return run_steps(self, arrays, options, resume)

    def programs(self) -> list[_core.Program]:
        """Return the recorded programs, oldest first."""
        return [r.program for found in self._recordings.values() for r in found]

    def memory(self) -> list[dict[str, int]]:
        """Return the memory of each program in bytes.

        ``temporaries`` is the peak of the block they share, ``without_reuse`` what they would take
        side by side, ``fixed`` parameters, gradients, optimizer state and whatever else belongs to
        others, ``inputs`` and ``results`` the user's arrays, ``scratch`` of the kernels.
        """
        return [program.memory() for program in self.programs()]

    def __repr__(self) -> str:
        name = getattr(self._fn, "__qualname__", repr(self._fn))
        return f"<captured {name}, {len(self.programs())} recorded>"

    def __str__(self) -> str:
        return "\n".join([repr(self), *map(listing, self.programs())])


@overload
def capture(
    fn: Callable[..., _R], *, check: bool = False, max_shapes: int = 64
) -> CapturedStep[_R]: ...
@overload
def capture(
    fn: Callable[..., _R], *, replicas: int, check: bool = False, max_shapes: int = 64
) -> CapturedReplicas: ...
@overload
def capture(
    *, replicas: int | None = None, check: bool = False, max_shapes: int = 64
) -> Callable[[Callable[..., Any]], Any]: ...
def capture(
    fn: Callable[..., Any] | None = None,
    *,
    replicas: int | None = None,
    check: bool = False,
    max_shapes: int = 64,
) -> Any:
    """Return a function like ``fn`` that replays its kernels as one native call.

    Parameters
    ----------
    fn : callable
        Takes ndarrays, Tensors, tuples, lists and dicts of them, and plain hashable values; inside,
        arrays are Tensors.  Typically a whole training step: zero_grad, forward, backward, step.
        Without it, a decorator is returned.
    replicas : int, optional
        Record ``fn(r, ...)`` for r = 0, 1, ... up to this number, each with its own model,
        optimizer and data (`nn.Ensemble`), and run them all in one call, spread over the threads:
        hyper-parameter sweeps, ensembles, cross-validation.  See `CapturedReplicas`.
    check : bool
        Run the first three replays of every program beside the plain function and compare results,
        parameters and all other state bit for bit; a difference is a CaptureError.
    max_shapes : int
        So many programs are kept, for different shapes, dtypes, plain arguments and modes; then the
        oldest is dropped.

    Returns
    -------
    step : CapturedStep or CapturedReplicas
        Called like ``fn``; Tensors and arrays in the result are new, off the tape.  A call with
        other shapes, dtypes, plain values or modes records another program.

    Raises
    ------
    CaptureError
        At the first call, if ``fn`` reads a value, branches on one, uses an array that NumPy made
        inside, or changes options or seeds: a recording could not repeat that.  The text names the
        line.  After any error in a recording everything is as it was before.
    ValueError
        If an argument requires a gradient, or max_shapes is less than 1.
    RuntimeError
        If an argument is on a device.

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
    if max_shapes < 1:
        raise ValueError(f"capture: max_shapes must be at least 1, got {max_shapes}")
    if fn is None:
        return functools.partial(capture, replicas=replicas, check=check, max_shapes=max_shapes)
    if replicas is None:
        return CapturedStep(fn, check, max_shapes)
    from fastdl._replicas import CapturedReplicas

    return CapturedReplicas(fn, replicas, check, max_shapes)


def key_of(args: tuple[Any, ...], arrays: list[Array]) -> Any:
    """Append the arrays in positional arguments to ``arrays``; return what selects a program."""
    return _flatten(args, arrays), None


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
    if isinstance(x, _core.DeviceArray):
        raise RuntimeError(
            f"capture: arguments must be on cpu, got one on {x.device}; call the function itself"
        )
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
