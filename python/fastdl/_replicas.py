"""A population of captured steps that run as one: ``capture(fn, replicas=k)``."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastdl import _core
from fastdl._array import Array, contiguous, describe
from fastdl._recording import Recording, filled
from fastdl._run import Run, RunOptions, RunState, permutation
from fastdl.capture import CapturedStep, key_of
from fastdl.errors import capture_error
from fastdl.tape import mode
from fastdl.tensor import Tensor, wrap

#: Native calls of `run` take about this long: between them Ctrl-C is seen.
_SECONDS_OF_A_CALL = 0.03


class CapturedReplicas:
    """The steps of k models, recorded one by one and replayed together.

    Made by ``capture(fn, replicas=k)``.  Each replica runs on one thread and gives the bits that it
    gives alone; what replicas write (parameters, optimizer state, random generators) must be their
    own.
    """

    def __init__(
        self, fn: Callable[..., Any], replicas: int, check: bool = False, max_shapes: int = 64
    ) -> None:
        if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 1:
            raise ValueError(f"capture: replicas must be an integer >= 1, got {replicas!r}")
        functools.update_wrapper(self, fn)
        self.steps = [
            CapturedStep(functools.partial(fn, r), check, max_shapes) for r in range(replicas)
        ]
        self._replay: Callable[..., Any] | None = None
        self._members: list[Recording] = []

    def __len__(self) -> int:
        return len(self.steps)

    def __call__(self, *arrays: Any) -> Any:
        """Call the function for every replica.

        Parameters
        ----------
        *arrays : (k, ...)
            Replica r gets ``array[r]``.  ``np.broadcast_to(X, (k, *X.shape))`` shares X.

        Returns
        -------
        results : what the function returns, with arrays stacked (k, ...)
        """
        if self._replay is not None:
            output = self._replay(*arrays)
            if output is not NotImplemented:
                return filled(self._members[0].form, output)
        if mode.recorder is not None:
            raise capture_error("calls captured replicas", "call them outside of the function")
        values = self._checked(arrays)
        members = self.find([[a[r] for a in values] for r in range(len(self))])
        if members is not None:
            output = self._join(members)(*values)
            if output is not NotImplemented:
                return filled(members[0].form, output)
        return self._one_by_one(values)

    def _checked(self, arrays: tuple[Any, ...]) -> list[Array]:
        values = []
        for i, a in enumerate(arrays):
            a = a._array if isinstance(a, Tensor) else a
            if not isinstance(a, np.ndarray) or a.shape[:1] != (len(self),):
                got = describe(a) if isinstance(a, np.ndarray) else type(a).__name__
                raise ValueError(
                    f"capture: argument {i} must be an array of {len(self)} replicas, got {got}; "
                    "use np.broadcast_to(X, (k, *X.shape)) to share one"
                )
            flags = a[0].flags if a.ndim > 1 else a.flags
            values.append(a if flags.c_contiguous and flags.aligned else contiguous(a))
        return values

    def find(self, batches: list[list[Array]]) -> list[Recording] | None:
        """Return the recordings of all replicas for such arguments, if there are all."""
        found = []
        for step, batch in zip(self.steps, batches, strict=True):
            recording = step.find(key_of(tuple(batch), []))
            if recording is None or recording.checks:
                return None
            found.append(recording)
        return found

    def _join(self, members: list[Recording]) -> Callable[..., Any]:
        """Return the function that replays them all; checks that they write apart."""
        if self._replay is None or members != self._members:
            self._replay = _core.make_replay_all([m.parts for m in members])
            self._members = members
        return self._replay

    def _one_by_one(self, values: list[Array]) -> Any:
        """Call the replicas in turn: they are recorded."""
        results = [step(*[a[r] for a in values]) for r, step in enumerate(self.steps)]
        return _stacked(results)

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
        own_data: bool = False,
    ) -> Any:
        """Train all replicas on batches of rows: `CapturedStep.run` for each, side by side.

        The arguments are those of `CapturedStep.run`, and these:

        Parameters
        ----------
        *arrays : (N, ...), or with ``own_data`` (k, N, ...)
            Rows that all replicas share, or rows of each.
        rng : a generator, or a sequence of k
            One generator draws an order for every replica in turn.

        Returns
        -------
        losses : what the function returns, stacked: (k, steps, ...)
        """
        options = RunOptions(
            batch_size, epochs, steps, shuffle, drop_last, rng, scale, schedules, callback, every
        )
        if resume is not None and not isinstance(resume, RunState):
            raise TypeError(f"run: resume must be a RunState, got {type(resume).__name__}")
        return _ReplicaRun(self, arrays, options, own_data).go(resume or RunState())

    def programs(self) -> list[_core.Program]:
        """Return the recorded programs, replica by replica."""
        return [p for step in self.steps for p in step.programs()]

    def __repr__(self) -> str:
        return f"<captured {len(self)} replicas, {len(self.programs())} recorded>"

    def __str__(self) -> str:
        return f"{self!r}, the first:\n{self.steps[0]}"


class _ReplicaRun(Run):
    """One call of `CapturedReplicas.run`; the order of an epoch is (k, N)."""

    axis = 1

    def __init__(
        self, owner: CapturedReplicas, arrays: tuple[Any, ...], o: RunOptions, own_data: bool
    ) -> None:
        self.owner, self.k = owner, len(owner)
        self._rngs = _checked_rngs(o.rng, self.k)
        first = tuple(owner._checked(arrays)) if own_data else arrays
        super().__init__(owner.steps[0], tuple(a[0] for a in first) if own_data else first, o)
        self._own = [[np.ascontiguousarray(a[r]) for a in first] for r in range(self.k)]
        if not own_data:
            self._own = [self.sources] * self.k
        self._seconds = 0.0  # of one step of all

    def draw(self) -> Array | None:
        if not self.options.shuffle:
            return None
        return np.stack([permutation(rng, self.rows) for rng in self._rngs])

    def do_steps(self, first: int, size: int, count: int) -> None:
        batches = [[self.example(a, size) for a in own] for own in self._own]
        members = self.owner.find(batches)
        if members is None:
            self._one_each(first, size)
            return
        if not all(m.steady for m in members):
            count = 1
        if self._seconds > 0:
            count = min(count, max(1, round(_SECONDS_OF_A_CALL / self._seconds)))
        else:
            count = min(count, 4)
        self.owner._join(members)
        start = time.perf_counter()
        results = _core.run_all([m.program for m in members], self._plan(first, size, count), count)
        self._seconds = (time.perf_counter() - start) / count
        for m in members:
            m.leave()
        self.results.add(members[0].form, results)
        self.state.done += count

    def _plan(self, first: int, size: int, count: int) -> list[tuple[Any, ...]]:
        order, done = self.state.order, self.state.done
        schedules = [(target, values[done : done + count]) for target, values in self.schedules]
        plan = []
        for r, own in enumerate(self._own):
            rows = None if order is None else order[r, first : first + size * count]
            plan.append((own, self.scales, rows, first, schedules if r == 0 else []))
        return plan

    def _one_each(self, first: int, size: int) -> None:
        order = self.state.order
        for target, values in self.schedules:
            target[...] = values[self.state.done]
        results = []
        for r, (step, own) in enumerate(zip(self.owner.steps, self._own, strict=True)):
            rows = slice(first, first + size) if order is None else order[r, first : first + size]
            results.append(step(*[self.converted(a[rows]) for a in own]))
        self.keep(_stacked(results))


def _stacked(results: list[Any]) -> Any:
    """Return a list of equal structures as one structure of stacked arrays."""
    first = results[0]
    if isinstance(first, Tensor):
        return wrap(np.stack([t._array for t in results]))
    if isinstance(first, np.ndarray):
        return np.stack(results)
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*map(_stacked, map(list, zip(*results, strict=True))))
    if isinstance(first, tuple | list):
        return type(first)(map(_stacked, map(list, zip(*results, strict=True))))
    if isinstance(first, dict):
        return {name: _stacked([r[name] for r in results]) for name in first}
    return first


def _checked_rngs(rng: Any, k: int) -> list[Any]:
    if not isinstance(rng, list | tuple):
        return [rng] * k
    if len(rng) != k:
        raise ValueError(f"run: rng must be one generator or {k}, got {len(rng)}")
    return list(rng)
