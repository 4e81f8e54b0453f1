"""Random numbers: one seed for initial values, shuffles and dropout masks."""

from __future__ import annotations

import operator

import numpy as np

from fastdl._array import Array, describe, placed
from fastdl.errors import capture_error
from fastdl.tape import mode


class Generator:
    """A counter-based random stream.

    Every use takes the next number of ``offset``; the random bits are a pure function of seed,
    offset and element index (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

    Parameters
    ----------
    seed : int, 0 <= seed < 2**63

    Attributes
    ----------
    state : int64 array (2,)
        ``[seed, offset]``; kernels that draw numbers advance it in place.
    """

    def __init__(self, seed: int = 0) -> None:
        self.state: Array = np.array([_checked(seed), 0], np.int64)

    def state_beside(self, x: Array) -> Array:
        """Return the state for a kernel that draws for ``x`` and advances it.

        On a device that is a copy, and the state is advanced here.
        """
        if isinstance(x, np.ndarray):
            return self.state
        state = placed(self.state, x)
        self.state[1] += 1
        return state

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of ``seed`` from its beginning; return the generator."""
        _refuse_recording("seeds a generator")
        self.state[:] = (_checked(seed), 0)
        return self

    def get_state(self) -> Array:
        """Return a copy of the state."""
        return self.state.copy()

    def set_state(self, state: Array) -> None:
        """Continue from a state that `get_state` returned.

        Raises
        ------
        ValueError
            If ``state`` is not an int64 array of two numbers >= 0.
        """
        _refuse_recording("sets a generator's state")
        state = np.asarray(state)
        if state.shape != (2,) or state.dtype != np.int64 or (state < 0).any():
            raise ValueError(
                f"set_state: state must be int64(2) of numbers >= 0, got {describe(state)} {state}"
            )
        self.state[:] = state

    def numpy(self) -> np.random.Generator:
        """Return a NumPy generator with a stream of its own; each call gives another stream."""
        _refuse_recording("draws numbers for NumPy")
        key = self.state.astype(np.uint64)
        self.state[1] += 1
        return np.random.Generator(np.random.Philox(key=key))

    def __repr__(self) -> str:
        return f"Generator(seed={self.state[0]}, offset={self.state[1]})"


def manual_seed(seed: int) -> Generator:
    """Seed the default generator, which everything uses unless told otherwise; return it.

    Parameters
    ----------
    seed : int, 0 <= seed < 2**63
    """
    return default_generator.manual_seed(seed)


def _checked(seed: int) -> int:
    seed = operator.index(seed)
    if not 0 <= seed < 2**63:
        raise ValueError(f"manual_seed: seed must be 0 <= seed < 2**63, got {seed}")
    return seed


def _refuse_recording(what: str) -> None:
    if mode.recorder is not None:
        raise capture_error(what, "do it outside of the captured function")


default_generator = Generator()
