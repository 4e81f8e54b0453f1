"""Y = act(X) keep / (1 - p): each element is kept with probability 1 - p, by Philox4x32-10.

Element i of a call reads word i % 4 of the block with counter (i / 4, offset) under key seed; it is
kept iff word >= round(p 2^32).  The state is [seed, offset]; each forward call uses one offset, and
the backward pass makes the same mask again from the saved state, or reads it from Y after relu.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011;
Srivastava et al., "Dropout", JMLR 2014.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from opcase import EDGE_SHAPES, Array, Case, Error, Kernel, Public

WORD = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def philox4x32(counter: Array, key: Array) -> Array:
    """(n, 4) counters and a (2,) key of 32-bit words, held in uint64, to (n, 4) random words."""
    c0, c1, c2, c3 = (counter[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = (int(k) for k in key)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (p1 >> HALF) ^ c1 ^ np.uint64(k0),
            p1 & WORD,
            (p0 >> HALF) ^ c3 ^ np.uint64(k1),
            p0 & WORD,
        )
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return np.stack([c0, c1, c2, c3], axis=1)


def random_words(size: int, seed: int, offset: int) -> Array:
    blocks = np.arange((size + 3) // 4, dtype=np.uint64)
    offset = offset % 2**64
    counter = np.empty((len(blocks), 4), np.uint64)
    counter[:, 0], counter[:, 1] = blocks & WORD, blocks >> HALF
    counter[:, 2], counter[:, 3] = offset % 2**32, offset >> 32
    seed = seed % 2**64
    return philox4x32(counter, np.array([seed % 2**32, seed >> 32])).reshape(-1)[:size]


def masked(X: Array, state: Array, p: float) -> Array:
    words = random_words(X.size, int(state[0]), int(state[1])).reshape(X.shape)
    keep = words >= np.uint64(np.floor(p * 2**32 + 0.5))
    return np.where(keep, X * scale_of(p, X), 0).astype(X.dtype)


def scale_of(p: float, like: Array) -> np.floating[Any]:
    scale: np.floating[Any] = like.dtype.type(1 / (1 - p) if p < 1 else 0)
    return scale


def dropout_forward(
    X: Array, state: Array, p: float = 0.5, activation: str = "none"
) -> dict[str, Array]:
    after = state + np.array([0, 1])
    X = np.maximum(X, 0) if activation == "relu" else X
    return {"Y": masked(X, state, p), "state": after, "saved": state}


def dropout_backward(
    dY: Array, saved: Array | None = None, Y: Array | None = None, p: float = 0.5,
    activation: str = "none",
) -> dict[str, Array]:  # fmt: skip
    if activation == "relu" and Y is not None:
        return {"dX": np.where(Y <= 0, 0, dY * scale_of(p, dY)).astype(dY.dtype)}
    assert saved is not None
    return {"dX": masked(dY, saved, p)}


def check_reference() -> None:
    """After relu Y holds the mask where X > 0; and the known-answer vectors of Random123."""
    pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    vectors = [
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([2**32 - 1] * 4, [2**32 - 1] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (pi, [0xA4093822, 0x299F31D0], "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ]
    X, dY = np.random.default_rng(0).normal(size=(2, 50))
    state = np.array([7, 3])
    for p in (0.1, 0.5, 1.0):
        Y = dropout_forward(X, state, p, "relu")["Y"]
        want = np.where(X > 0, dropout_backward(dY, state, p=p)["dX"], 0)
        np.testing.assert_array_equal(dropout_backward(dY, None, Y, p, "relu")["dX"], want)
    for counter, key, words in vectors:
        got = philox4x32(np.array([counter], np.uint64), np.array(key, np.uint64))[0]
        assert " ".join(f"{int(w):08x}" for w in got) == words


def some_state(rng: np.random.Generator, shape: tuple[int, ...], case: Case) -> Array:
    return np.array([rng.integers(0, 2**62), rng.integers(0, 1000)])


def extreme_state(rng: np.random.Generator, shape: tuple[int, ...], case: Case) -> Array:
    """A negative seed is its 64 bits; an offset uses its upper half too."""
    return np.array([-2, 2**40 + 3])


PS = (0.0, 0.1, 0.25, 0.9, 1e-12, 1 - 1e-7, 1.0)


def cases(activation: str = "none", **more: Any) -> list[Case]:
    return [
        *(Case(shape=s, activation=activation, **more) for s in EDGE_SHAPES),
        *(Case(shape=(37, 5), p=p, activation=activation, **more) for p in PS),
    ]


BASE = Case(shape=(2, 3))


def wrong_options(kernel: str) -> list[Error]:
    text = f"^{kernel}: p must be .*0.*1.*, got "
    tanh = f"{kernel}: activation must be none or relu, got tanh"
    return [
        Error(BASE, {"activation": "tanh"}, tanh),
        *(Error(BASE, {"p": p}, text) for p in (-0.1, 1.5, float("nan"))),
    ]


KERNELS = [
    Kernel(
        dropout_forward,
        cases=[*cases(), *cases("relu"), Case(shape=(37, 5), state=extreme_state)],
        values={"state": some_state},
        attributes={"p": (0.0, 0.2, 0.5, 1.0), "activation": ("none", "relu")},
        exact=True,
        inplace=("Y=X",),
        public=Public(
            "dropout",
            Case(shape=(6, 5)),
            lambda fd, a, **options: fd.ops.dropout(
                a["X"], 0.3, generator=fd.Generator(5), **options
            ),
        ),
        specials="X",
        errors=[
            *wrong_options("dropout_forward"),
            Error(BASE, {"state": np.array([1, 2, 3])}, "^dropout_forward: state must be int64.2"),
            Error(BASE, {"state": (2,)}, "^dropout_forward: state must be int64.2", TypeError),
        ],
    ),
    Kernel(
        dropout_backward,
        cases=[
            *cases(without="Y"),
            *cases("relu", without="saved"),
            Case(shape=(37, 5), saved=extreme_state, without="Y"),
        ],
        values={"saved": some_state},
        attributes={"p": (0.0, 0.2, 0.5, 1.0), "activation": ("none", "relu")},
        valid=lambda case: (
            "Y" not in case.without
            if case.attributes.get("activation") == "relu"
            else "saved" not in case.without
        ),
        exact=True,
        inplace=("dX=dY", "dX=Y"),
        specials="dY Y",
        errors=[
            *wrong_options("dropout_backward"),
            Error(BASE, {"saved": None}, "^dropout_backward: saved must be given when there is no"),
            Error(
                BASE,
                {"activation": "relu", "Y": None},
                "^dropout_backward: Y must be the output of the forward pass when there is an act",
            ),
        ],
    ),
]
