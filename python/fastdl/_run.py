"""`CapturedStep.run`: epochs of batches, in as few native calls as the callbacks allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdl._array import Array, describe
from fastdl._interrupt import Interrupt, deferred
from fastdl._recording import Place, filled, rebuilt
from fastdl.errors import Interrupted
from fastdl.random import Generator, default_generator
from fastdl.tensor import Tensor

if TYPE_CHECKING:
    from fastdl.capture import CapturedStep


@dataclass(frozen=True)
class RunOptions:
    """The keyword arguments of `CapturedStep.run`."""

    batch_size: int
    epochs: int | None
    steps: int | None
    shuffle: bool
    drop_last: bool
    rng: Generator | np.random.Generator | None
    scale: float | None
    schedules: Iterable[tuple[Any, Any]]
    callback: Callable[[int, Any], Any] | None
    every: int | None


@dataclass
class RunState:
    """Where an interrupted run goes on: steps done, and the order of the epoch's rows."""

    done: int = 0
    order: Array | None = None


class _Results:
    """What the steps returned, piece by piece."""

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.form: Any = None
        self._pieces: list[list[Array]] = []

    def add(self, form: Any, stacked: list[Array]) -> None:
        """Append the stacked results of some steps."""
        self.form = form
        self._pieces.append(stacked)

    def since(self, piece: int) -> Any:
        """Return the results from the given piece on, in the form of the function's result."""
        if not self._pieces[piece:]:
            return None
        columns = zip(*self._pieces[piece:], strict=True)
        return filled(
            self.form, [_joined(list(column), self.axis) for column in columns], tensors=False
        )

    def __len__(self) -> int:
        return len(self._pieces)


def _joined(pieces: list[Array], axis: int) -> Any:
    if len({p.shape[axis + 1 :] for p in pieces}) == 1:
        return np.concatenate(pieces, axis)
    return [row for p in pieces for row in np.moveaxis(p, axis, 0)]


class Run:
    """One call of `run`."""

    #: Which axis of the results counts the steps.
    axis = 0

    def __init__(self, step: CapturedStep[Any], arrays: tuple[Any, ...], o: RunOptions) -> None:
        self.step, self.options = step, o
        self.sources = _checked_sources(arrays, o)
        self.rows = len(self.sources[0])
        self.per_epoch = self.rows // o.batch_size
        if self.rows % o.batch_size and not o.drop_last:
            self.per_epoch += 1
        self.total = _total_steps(o, self.per_epoch)
        self.schedules = _checked_schedules(o.schedules, self.total)
        self.scales = [_checked_scale(o.scale)] * len(self.sources)
        self.results = _Results(self.axis)
        self.state = RunState()
        self.interrupt = Interrupt()

    def go(self, state: RunState) -> Any:
        """Run from ``state`` to the end."""
        self.state = RunState(state.done, state.order)
        told = 0
        with deferred() as self.interrupt:
            for stop in self._stops():
                while self.state.done < stop:
                    self._advance(min(stop, self._epoch_end()))
                    if self.interrupt.pressed:
                        raise Interrupted("run: interrupted", self.results.since(0), self.state)
                callback = self.options.callback
                if callback is not None:
                    answer = callback(self.state.done, self.results.since(told))
                    told = len(self.results)
                    if answer is False:
                        break
        return self.results.since(0)

    def _stops(self) -> Iterator[int]:
        """Yield the numbers of steps after which the callback is called."""
        if self.options.callback is None:
            yield self.total
            return
        every = self.options.every or self.per_epoch
        first = (self.state.done // every + 1) * every
        yield from range(first, self.total, every)
        yield self.total

    def _epoch_end(self) -> int:
        return (self.state.done // self.per_epoch + 1) * self.per_epoch

    def _advance(self, stop: int) -> None:
        """Do steps of one epoch, as many as one native call can."""
        position = self.state.done % self.per_epoch
        if position == 0:
            self.state.order = self.draw()
        size = self.options.batch_size
        first = position * size
        whole = self.rows // size
        if position < whole:
            count = min(stop - self.state.done, whole - position)
            self.do_steps(first, size, count)
        else:
            self.do_steps(first, self.rows - first, 1)

    def draw(self) -> Array | None:
        """Return the order of the rows in the next epoch."""
        if not self.options.shuffle:
            return None
        return permutation(self.options.rng, self.rows)

    def do_steps(self, first: int, size: int, count: int) -> None:
        """Do ``count`` steps of ``size`` rows each, from position ``first`` of the order."""
        from fastdl.capture import key_of

        examples = [self.example(a, size) for a in self.sources]
        recording = self.step.find(key_of(tuple(examples), []))
        if recording is None or recording.checks:
            self._one(first, size)
            return
        if not recording.steady:
            count = 1
        order = self.state.order
        rows = None if order is None else order[first : first + size * count]
        done = self.state.done
        schedules = [(target, values[done : done + count]) for target, values in self.schedules]
        steps, stacked, error = recording.program.run_steps(
            self.sources, self.scales, rows, first, count, schedules, self.interrupt.flag
        )
        if steps:
            recording.leave()
            self.results.add(recording.form, [a[:steps] for a in stacked])
            self.state.done += steps
        if error is not None:
            raise error

    def _one(self, first: int, size: int) -> None:
        """Do one step through Python: it is recorded."""
        order = self.state.order
        rows = slice(first, first + size) if order is None else order[first : first + size]
        batch = [self.converted(a[rows]) for a in self.sources]
        for target, values in self.schedules:
            target[...] = values[self.state.done]
        self.keep(self.step(*batch))

    def keep(self, result: Any) -> None:
        """Add the result of one step."""
        arrays: list[Array] = []

        def place(x: Any) -> Place:
            array = x._array if isinstance(x, Tensor) else x
            arrays.append(np.expand_dims(array, self.axis))
            return Place(len(arrays) - 1, False)

        self.results.add(rebuilt(result, place), arrays)
        self.state.done += 1

    def converted(self, a: Array) -> Array:
        """Return rows as the function gets them."""
        if a.dtype == np.uint8 and self.options.scale is not None:
            return a.astype(np.float32) * np.float32(self.options.scale)
        return a

    def example(self, a: Array, size: int) -> Array:
        """Return an array of the batch's shape and dtype; its values do not matter."""
        if a.dtype == np.uint8 and self.options.scale is not None:
            return np.broadcast_to(np.float32(0), (size, *a.shape[1:]))
        return a[:size]


def run_steps(
    step: CapturedStep[Any], arrays: tuple[Any, ...], options: RunOptions, resume: Any
) -> Any:
    """Do what `CapturedStep.run` says."""
    if resume is not None and not isinstance(resume, RunState):
        raise TypeError(f"run: resume must be a RunState, got {type(resume).__name__}")
    return Run(step, arrays, options).go(resume or RunState())


def permutation(rng: Generator | np.random.Generator | None, n: int) -> Array:
    """Return an order of n rows, drawn by ``rng`` or the default generator."""
    rng = rng or default_generator
    return (rng.numpy() if isinstance(rng, Generator) else rng).permutation(n)


def _checked_scale(scale: float | None) -> float:
    if scale is None:
        return 1.0
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not np.isfinite(scale):
        raise ValueError(f"run: scale must be a finite number, such as 1 / 255, got {scale!r}")
    return float(scale)


def _checked_sources(arrays: tuple[Any, ...], o: RunOptions) -> list[Array]:
    if not arrays:
        raise ValueError("run: arrays must be at least one, got none")
    sources = []
    for i, a in enumerate(arrays):
        a = a._array if isinstance(a, Tensor) else a
        if not isinstance(a, np.ndarray) or a.ndim == 0:
            got = describe(a) if isinstance(a, np.ndarray) else type(a).__name__
            raise TypeError(f"run: array {i} must be an ndarray of rows, got {got}")
        sources.append(np.ascontiguousarray(a))
    lengths = [len(a) for a in sources]
    if len(set(lengths)) > 1:
        raise ValueError(f"run: arrays must have equally many rows, got {lengths}")
    if isinstance(o.batch_size, bool) or not isinstance(o.batch_size, int) or o.batch_size < 1:
        raise ValueError(f"run: batch_size must be an integer of at least 1, got {o.batch_size!r}")
    if lengths[0] == 0 or (o.drop_last and lengths[0] < o.batch_size):
        raise ValueError(
            f"run: arrays must have at least {o.batch_size if o.drop_last else 1} rows, got "
            f"{lengths[0]}"
        )
    return sources


def _total_steps(o: RunOptions, per_epoch: int) -> int:
    if o.epochs is not None and o.steps is not None:
        raise ValueError("run: either epochs or steps must be given, got both")
    for name in ("epochs", "steps", "every"):
        value = getattr(o, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise TypeError(f"run: {name} must be an integer, got {value!r}")
        if value is not None and value < (1 if name == "every" else 0):
            raise ValueError(f"run: {name} must not be negative, got {value}")
    return o.steps if o.steps is not None else per_epoch * (1 if o.epochs is None else o.epochs)


def _checked_schedules(
    schedules: Iterable[tuple[Any, Any]], total: int
) -> list[tuple[Array, Array]]:
    found = []
    for group, given in schedules:
        hyper = getattr(group, "hyper", None)
        if hyper is None or "lr" not in group.owner.hyper_names:
            raise TypeError(
                "run: schedules must be pairs of an entry of optimizer.param_groups and learning "
                f"rates, got {type(group).__name__}"
            )
        values = np.ascontiguousarray(given, np.float64)
        if values.shape != (total,):
            raise ValueError(
                f"run: a schedule must hold one learning rate for each of {total} steps, got "
                f"{describe(values)}"
            )
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError("run: learning rates must be finite and at least 0")
        i = group.owner.hyper_names.index("lr")
        found.append((hyper[i : i + 1], values))
    return found
