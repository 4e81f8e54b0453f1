"""Runs: what one kernel call of an optimizer works on."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdl import _core
from fastdl._array import (
    Array,
    aligned_zeros,
    assign,
    compute_dtype,
    on_host,
    placed,
    to_device,
)
from fastdl.optim.arena import segment_view
from fastdl.optim.group import ParamGroup
from fastdl.tensor import Tensor

#: The state of parameters in bfloat16 that steps are taken in: float32 weights, which the
#: parameters are rounded from.
MASTER = "master"


class Run:
    """Parameters side by side in memory, with their state in arrays of the same layout."""

    def __init__(self, group: ParamGroup, params: list[Tensor]) -> None:
        homes = [p._home for p in params]
        first, last = homes[0], homes[-1]
        assert first is not None
        assert last is not None
        self.group = group
        self.params = params
        self.homes = homes
        self._mark = object()
        self.start, self.stop = first.start, last.stop
        self.theta: Array = first.arena.theta[self.start : self.stop]
        self.grad: Array = first.arena.grad[self.start : self.stop]
        self.steps: Array = to_device(np.zeros(len(params), np.int64), group.device)
        self.ends: Array = np.array([h.stop - self.start for h in homes if h], np.int64)
        self.dtype = compute_dtype(self.theta.dtype)
        self.state: dict[str, Array] = {}
        self._calls: dict[tuple[int, int], tuple[Any, ...]] = {}
        if self.dtype != self.theta.dtype:
            self.add_state(MASTER)

    def add_state(self, name: str) -> None:
        """Make a state array as it is before the first step, unless there is one."""
        if name not in self.state:
            self.state[name] = aligned_zeros(self.theta.size, self.dtype, self.group.device)
            _begin(name, self.state[name], self.theta)

    def clear_state(self, i: int) -> None:
        """Put the state of parameter ``i`` back to what it was before the first step."""
        self.set_steps(i, 0)
        for name in self.state:
            _begin(name, self.state_of(name, i), self.params[i]._array)

    def follow_parameters(self) -> None:
        """Give master weights the values of parameters that are not what they are rounded to."""
        if MASTER not in self.state:
            return
        master, theta = on_host(self.state[MASTER]), on_host(self.theta)
        moved = master.astype(theta.dtype) != theta
        if moved.any():
            assign(self.state[MASTER], np.where(moved, theta.astype(master.dtype), master))

    def claim_parameters(self) -> None:
        """Let master weights follow what another optimizer wrote since the last step here."""
        if MASTER not in self.state or all(h and h.writer is self._mark for h in self.homes):
            return
        self.follow_parameters()
        for home in self.homes:
            if home:
                home.writer = self._mark

    def state_of(self, name: str, i: int) -> Array:
        """Return the view of parameter ``i`` into a state array."""
        start = int(self.ends[i - 1]) if i else 0
        return segment_view(self.state[name], start, self.params[i].shape)

    def set_steps(self, i: int, count: int) -> None:
        """Say how many steps parameter ``i`` has taken."""
        assign(self.steps[i : i + 1], count)

    def forget_calls(self) -> None:
        """Build the kernel arguments anew at the next step."""
        self._calls.clear()

    def call(self, i: int, j: int) -> tuple[Any, ...]:
        """Return the kernel arguments for parameters ``i`` to ``j``."""
        found = self._calls.get((i, j))
        if found is None:
            found = self._calls[i, j] = self._make_call(i, j)
        return found

    def _make_call(self, i: int, j: int) -> tuple[Any, ...]:
        start = int(self.ends[i - 1]) if i else 0
        part = slice(start, int(self.ends[j - 1]))
        used = (MASTER, *self.group.owner.state_in_use(self.group))
        states = [
            self.state[name][part] if name in used and name in self.state else None
            for name in (MASTER, *self.group.owner.state_names)
        ]
        ends = placed(self.ends[i:j] - start, self.theta)
        tail = self.group.owner.kernel_options
        arrays = (self.theta[part], self.grad[part], *states, self.steps[i:j], ends)
        squares = self.group.squares if self.group["clip_norm"] != 0 else None
        return (*arrays, self.group.kernel_hyper, squares, *tail)

    def gradients(self) -> list[Array]:
        """Return the parts of the flat gradient that hold one."""
        return [
            self.grad[(int(self.ends[i - 1]) if i else 0) : int(self.ends[j - 1])]
            for i, j in self.stretches()
        ]

    def stretches(self) -> list[tuple[int, int]]:
        """Return ``(i, j)`` of the stretches of parameters that have a gradient."""
        found: list[tuple[int, int]] = []
        for i, p in enumerate(self.params):
            if p._grad is None:
                continue
            if found and found[-1][1] == i:
                found[-1] = (found[-1][0], i + 1)
            else:
                found.append((i, i + 1))
        return found


def _begin(name: str, state: Array, theta: Array) -> None:
    """Fill an array with what it holds before a step; an average that has not begun is NaN."""
    if name == MASTER:
        _core.cast(theta, state)
    else:
        assign(state, np.nan if name == "ema" else 0.0)
