"""A ring of transitions that random batches are drawn from."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fastdl import _core
from fastdl._array import Array, describe
from fastdl.errors import capture_error
from fastdl.random import Generator, default_generator
from fastdl.tape import mode

Field: TypeAlias = npt.DTypeLike | tuple[int | tuple[int, ...], npt.DTypeLike]


class ReplayBuffer:
    """The last ``capacity`` transitions, of which batches are drawn with equal probability.

    Parameters
    ----------
    capacity : int
        How many transitions it holds; then the oldest are overwritten.
    fields : mapping of names to (shape, dtype), or to a dtype for one number
        What a transition is made of.  Flags are best uint8, which kernels read.

    Raises
    ------
    ValueError, TypeError
        If ``capacity`` or a field is not as above.

    Notes
    -----
    Memory is taken at once; pages that were not written yet cost nothing.  Source: Lin,
    "Self-improving reactive agents based on reinforcement learning, planning and teaching", 1992.

    Examples
    --------
    >>> buffer = fastdl.data.ReplayBuffer(
    ...     100_000,
    ...     {"obs": (4, np.float32), "action": np.int64, "reward": np.float32,
    ...      "next_obs": (4, np.float32), "done": np.uint8},
    ... )
    >>> buffer.add(obs, action, reward, next_obs, done)
    >>> batch = buffer.sample(64)  # a dict of arrays
    >>> loss = step(**buffer.sample(64, out=batch))  # into the same arrays
    """

    def __init__(self, capacity: int, fields: Mapping[str, Field]) -> None:
        self._capacity = _positive("ReplayBuffer", "capacity", capacity)
        if not isinstance(fields, Mapping) or not fields:
            raise TypeError(
                f"ReplayBuffer: fields must be a mapping of names to (shape, dtype), got {fields!r}"
            )
        self._arrays = {n: _zeros(n, field, self._capacity) for n, field in fields.items()}
        self._position = self._size = 0
        self._high, self._index = np.zeros((), np.int64), np.empty(0, np.int64)

    @property
    def capacity(self) -> int:
        """How many transitions fit."""
        return self._capacity

    @property
    def fields(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and dtype of each field."""
        return {name: (a.shape[1:], a.dtype) for name, a in self._arrays.items()}

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        fields = ", ".join(f"{n}: {describe(a[0])}" for n, a in self._arrays.items())
        return f"<ReplayBuffer, {self._size} of {self._capacity}, {fields}>"

    def add(self, *values: Any, **fields: Any) -> None:
        """Add one transition: all fields by name, or all in the order of the fields.

        Raises
        ------
        TypeError
            If a field is missing or unknown, or its dtype does not hold a value's (floats may be
            rounded, integers must fit).
        ValueError
            If a value has another shape, or a Python integer does not fit.
        """
        given = self._given("add", values, fields)
        checked = [
            (a, _fitting("add", name, given[name], a.shape[1:], a.dtype))
            for name, a in self._arrays.items()
        ]
        for a, value in checked:
            a[self._position] = value
        self._advance(1)

    def add_batch(self, *values: Any, **fields: Any) -> None:
        """Add B transitions as `add` would one after another; every field has shape (B, ...).

        Raises
        ------
        TypeError, ValueError
            As `add`, or if fields differ in B.
        """
        given = self._given("add_batch", values, fields)
        first = np.asarray(next(iter(given.values())))
        B = first.shape[0] if first.ndim else -1
        checked = [
            (a, _fitting("add_batch", name, given[name], (B, *a.shape[1:]), a.dtype))
            for name, a in self._arrays.items()
        ]
        kept = min(B, self._capacity)  # of more than fit only the last remain
        start = (self._position + B - kept) % self._capacity
        head = min(kept, self._capacity - start)
        for a, value in checked:
            new = value[B - kept :]
            a[start : start + head] = new[:head]
            a[: kept - head] = new[head:]
        self._advance(B)

    def sample(
        self,
        batch_size: int,
        rng: Generator | np.random.Generator | None = None,
        out: Mapping[str, Array] | None = None,
    ) -> dict[str, Array]:
        """Return ``batch_size`` transitions drawn with replacement.

        Parameters
        ----------
        batch_size : int
        rng : fastdl.Generator or numpy.random.Generator, optional
            By default the generator that `fastdl.manual_seed` seeds.
        out : mapping of all names to arrays (batch_size, ...) of the field's dtype, optional
            Receives the batch, without new arrays.

        Returns
        -------
        batch : dict of arrays (batch_size, ...), in the order of the fields

        Raises
        ------
        ValueError
            If the buffer is empty, ``batch_size`` < 1, or an array of ``out`` has another shape or
            layout.
        TypeError
            If ``out`` has other names or dtypes, or ``rng`` is no generator.
        CaptureError
            While a step is recorded.
        """
        if mode.recorder is not None:
            raise capture_error("samples a replay buffer", "pass the batch as arguments")
        B = _positive("sample", "batch_size", batch_size)
        if self._size == 0:
            raise ValueError("sample: the buffer must hold a transition, got an empty one")
        batch = self._batch(B) if out is None else self._checked_out(B, out)
        index = self._drawn(B, rng)
        for name, a in self._arrays.items():
            np.take(a, index, axis=0, out=batch[name], mode="clip")  # clip: no buffer in between
        return batch

    def state_dict(self) -> dict[str, Array]:
        """Return the transitions and where the next one goes, for `fastdl.save`.

        The arrays are read-only views: they show what is added later.
        """
        state = {name: a[: self._size] for name, a in self._arrays.items()}
        for a in state.values():
            a.flags.writeable = False
        return {"_position": np.array(self._position), **state}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Take the transitions of `state_dict`: sampling goes on as if there had been no break.

        Raises
        ------
        TypeError, ValueError
            If fields, shapes or dtypes differ, or the transitions do not fit; nothing has been
            changed then.
        """
        wanted = ["_position", *self._arrays]
        if sorted(state) != sorted(wanted):
            raise TypeError(
                f"load_state_dict: state must have the fields {wanted}, got {list(state)}"
            )
        position, size = int(state["_position"]), len(state[wanted[1]])
        for name, a in self._arrays.items():
            got = np.asarray(state[name])
            if got.dtype != a.dtype or got.shape != (size, *a.shape[1:]):
                raise ValueError(
                    f"load_state_dict: {name} must be {a.dtype}({size}, *{a.shape[1:]}), got "
                    f"{describe(got)}"
                )
        full = size == self._capacity and 0 <= position < size
        if not full and not (position == size < self._capacity):
            raise ValueError(
                f"load_state_dict: a buffer that was full must have capacity {size}, got "
                f"{self._capacity}"
            )
        for name, a in self._arrays.items():
            a[:size] = state[name]
        self._position, self._size = position, size

    def _given(self, op: str, values: tuple[Any, ...], fields: dict[str, Any]) -> Mapping[str, Any]:
        if values and not fields and len(values) == len(self._arrays):
            return dict(zip(self._arrays, values, strict=True))
        if values or fields.keys() != self._arrays.keys():
            got = f"{len(values)} values" if values else ""
            raise TypeError(
                f"{op}: fields must be {list(self._arrays)}, all by name or all by position, got "
                f"{' and '.join(filter(None, [got, str(list(fields)) if fields else '']))}"
            )
        return fields

    def _advance(self, count: int) -> None:
        self._position = (self._position + count) % self._capacity
        self._size = min(self._size + count, self._capacity)

    def _batch(self, B: int) -> dict[str, Array]:
        return {n: np.empty((B, *a.shape[1:]), a.dtype) for n, a in self._arrays.items()}

    def _checked_out(self, B: int, out: Mapping[str, Array]) -> dict[str, Array]:
        if out.keys() != self._arrays.keys():
            raise TypeError(f"sample: out must have {list(self._arrays)}, got {list(out)}")
        for name, a in self._arrays.items():
            got, shape = out[name], (B, *a.shape[1:])
            if not isinstance(got, np.ndarray) or got.dtype != a.dtype:
                what = describe(got) if isinstance(got, np.ndarray) else type(got).__name__
                raise TypeError(f"sample: out[{name!r}] must be of {a.dtype}, got {what}")
            if got.shape != shape or not got.flags.carray:
                raise ValueError(
                    f"sample: out[{name!r}] must have shape {shape}, C-contiguous and writeable, "
                    f"got {describe(got)}"
                )
        return dict(out) if type(out) is not dict else out

    def _drawn(self, B: int, rng: Generator | np.random.Generator | None) -> Array:
        if len(self._index) != B:
            self._index = np.empty(B, np.int64)
        source = default_generator if rng is None else rng
        if isinstance(source, Generator):
            self._high[...] = self._size
            _core.random_index(source.state, self._high, self._index)
        elif isinstance(source, np.random.Generator):
            self._index[:] = source.integers(0, self._size, B)
        else:
            raise TypeError(
                "sample: rng must be a fastdl.Generator or a numpy.random.Generator, got "
                f"{type(rng).__name__}"
            )
        return self._index


def _positive(op: str, name: str, value: int) -> int:
    n = operator.index(value)
    if n < 1:
        raise ValueError(f"{op}: {name} must be at least 1, got {n}")
    return n


def _zeros(name: str, field: Field, capacity: int) -> Array:
    shape, dtype = field if isinstance(field, tuple) else ((), field)
    try:
        sizes = (shape,) if isinstance(shape, int) else tuple(map(operator.index, shape))
        array = np.zeros((capacity, *sizes), np.dtype(dtype))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"ReplayBuffer: field {name!r} must be (shape, dtype) or a dtype, got {field!r}: "
            f"{error}"
        ) from None
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"ReplayBuffer: field {name!r} must be of numbers or flags, got {array.dtype}"
        )
    return array


def _fitting(op: str, name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return a value as an array that a field holds: floats may be rounded, integers must fit."""
    number = isinstance(value, int) and shape == ()
    try:
        array = np.asarray(value, dtype if number else None)
    except OverflowError:
        raise ValueError(f"{op}: {name} must fit {dtype}, got {value}") from None
    if array.shape != shape:
        raise ValueError(f"{op}: {name} must have shape {shape}, got {describe(array)}")
    casting: Literal["same_kind", "safe"] = "same_kind" if array.dtype.kind == "f" else "safe"
    if array.dtype != dtype and not np.can_cast(array.dtype, dtype, casting):
        raise TypeError(
            f"{op}: {name} must be of a dtype that {dtype} holds, got {describe(array)}; "
            "use .astype(...)"
        )
    return array
