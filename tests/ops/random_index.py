"""index_i = floor(u_i high); u_i 2^64 is words 2i and 2i + 1 of Philox4x32-10, low word first."""

from __future__ import annotations

import numpy as np
from opcase import Array, Case, Error, Kernel, Rng

from ops.dropout import extreme_state, random_words, some_state


def random_index(state: Array, high: Array, index: Array) -> dict[str, Array]:
    words = random_words(2 * index.size, int(state[0]), int(state[1])).tolist()
    n = int(high)
    drawn = [(a | b << 32) * n >> 64 for a, b in zip(words[::2], words[1::2], strict=True)]
    return {"index": np.array(drawn, np.int64), "state": state + np.array([0, 1])}


def some_high(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    return np.array(rng.integers(1, 2**40))


def largest_high(rng: Rng, shape: tuple[int, ...], case: Case) -> Array:
    return np.array(2**63 - 1)


def check_reference() -> None:
    """Every place is drawn about equally often."""
    drawn = random_index(np.array([5, 0]), np.array(7), np.empty(7000))["index"]
    counts = np.bincount(drawn)
    assert len(counts) == 7 and (np.abs(counts - 1000) < 150).all()


BASE = Case(B=3)

KERNELS = [
    Kernel(
        random_index,
        cases=[
            *(Case(B=B) for B in (0, 1, 2, 3, 7, 64, 1001, 40_001)),
            Case(B=50, high=np.array(1)),
            Case(B=50, high=largest_high),
            Case(B=50, state=extreme_state),
        ],
        values={"state": some_state, "high": some_high},
        exact=True,
        errors=[
            Error(BASE, {"high": np.array(0)}, "random_index: high must be at least 1, got 0"),
            Error(BASE, {"high": np.array(-5)}, "random_index: high must be at least 1, got -5"),
            Error(BASE, {"state": np.array([1])}, "^random_index: state must be int64.2"),
        ],
    ),
]
