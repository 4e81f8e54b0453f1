"""Record and replay, and how it can be misused."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastdl import _core
from subprocesses import python

f32 = np.float32
Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def not_recording() -> Iterator[None]:
    yield
    assert not _core.recording(), "a test left a program recording"


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(f32)


def record(inputs: list[Array], body: Any) -> _core.Program:
    program = _core.Program(inputs)
    program.begin()
    try:
        body()
    finally:
        program.end()
    return program


def relu_program(X: Array, Y: Array) -> _core.Program:
    return record([X], lambda: _core.relu_forward(X, Y))


def two_layers(X: Array, W: list[Array], H: Array, Y: Array) -> None:
    _core.affine_forward(X, W[0], None, H, "relu")
    _core.affine_forward(H, W[1], None, Y)


def test_a_chain_of_calls_replays() -> None:
    X, W = numbers(5, 4), [numbers(4, 8, seed=1), numbers(8, 3, seed=2)]
    H, Y = np.empty((5, 8), f32), np.empty((5, 3), f32)
    program = record([X], lambda: two_layers(X, W, H, Y))
    assert len(program) == 2
    new = numbers(5, 4, seed=3)
    program.run([new])
    got = Y.copy()
    two_layers(new, W, H, Y)
    assert got.tobytes() == Y.tobytes()


def test_an_array_of_the_program_may_change_between_runs() -> None:
    """Weights are read where they lie: an update in place steers the next replay."""
    X, W, Y = numbers(5, 4), numbers(4, 3), np.empty((5, 3), f32)
    program = record([X], lambda: _core.affine_forward(X, W, None, Y))
    W[...] *= 2
    program.run([X])
    want = np.empty_like(Y)
    _core.affine_forward(X, W, None, want)
    assert Y.tobytes() == want.tobytes()


def test_views_into_a_slot_follow_it() -> None:
    X, Y = numbers(6, 4), np.empty((2, 4), f32)
    program = record([X], lambda: _core.relu_forward(X[3:5], Y))
    new = numbers(6, 4, seed=1)
    program.run([new])
    assert np.array_equal(Y, np.maximum(new[3:5], 0))


def test_outputs_and_state_may_be_slots() -> None:
    X, Y = numbers(7), np.zeros(7, f32)
    program = record([X, Y], lambda: _core.relu_forward(X, Y))
    new, out = numbers(7, seed=1), np.zeros(7, f32)
    before = Y.copy()
    program.run([new, out])
    assert np.array_equal(out, np.maximum(new, 0)) and np.array_equal(Y, before)


def test_a_listing_names_calls_and_costs() -> None:
    X, Y = numbers(7), np.empty(7, f32)
    program = relu_program(X, Y)
    (call,) = program.calls()
    assert call["name"] == "relu_forward" and call["bytes"] == 2 * X.nbytes and call["flops"] == 7
    assert "X float32(7,)" in call["args"] and "relu_forward(X float32(7,)" in str(program)


def test_an_empty_program_runs() -> None:
    program = record([], lambda: None)
    program.run([])
    assert len(program) == 0 and str(program) == ""


def test_arrays_stay_alive() -> None:
    def temporaries() -> tuple[_core.Program, Array, Array]:
        X, W, Y = numbers(50, 40), numbers(40, 30), np.empty((50, 30), f32)
        program = record([X], lambda: _core.affine_forward(X.copy(), W, None, Y))
        return program, Y, Y.copy()

    program, Y, want = temporaries()
    gc.collect()
    junk = [np.full((40, 50), np.nan, f32) for _ in range(100)]
    Y[...] = 0
    program.run([numbers(50, 40)])
    assert Y.tobytes() == want.tobytes() and len(junk) == 100


def test_the_same_program_from_many_threads() -> None:
    X, Y = numbers(20_000), np.empty(20_000, f32)
    program = relu_program(X, Y)
    inputs = [numbers(20_000, seed=i) for i in range(4)]
    outs = [np.empty_like(Y) for _ in inputs]
    both = record([X, Y], lambda: _core.relu_forward(X, Y))
    threads = [
        threading.Thread(target=lambda i=i: [both.run([inputs[i], outs[i]]) for _ in range(50)])
        for i in range(4)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for given, out in zip(inputs, outs, strict=True):
        assert np.array_equal(out, np.maximum(given, 0))
    assert len(program) == 1


def test_recording_is_per_thread() -> None:
    X, Y = numbers(7), np.empty(7, f32)
    seen = []

    def body() -> None:
        other = threading.Thread(
            target=lambda: seen.append((_core.recording(), _core.relu_forward(X, np.empty_like(X))))
        )
        other.start()
        other.join()
        _core.relu_forward(X, Y)

    assert len(record([X], body)) == 1 and seen == [(False, None)]


def test_a_refused_call_is_not_recorded() -> None:
    X, Y = numbers(7), np.empty(7, f32)

    def body() -> None:
        with pytest.raises(ValueError):
            _core.relu_forward(X, np.empty(8, f32))
        _core.relu_forward(X, Y)

    assert len(record([X], body)) == 1


# ---- misuse -------------------------------------------------------------------------------------


def test_nested_recording() -> None:
    def body() -> None:
        with pytest.raises(RuntimeError, match=r"^Program.begin: .*recording"):
            _core.Program([]).begin()

    record([], body)


def test_end_without_begin() -> None:
    with pytest.raises(RuntimeError, match=r"^Program.end: .*not recording"):
        _core.Program([]).end()


def test_run_while_recording() -> None:
    X, Y = numbers(7), np.empty(7, f32)
    done = relu_program(X, Y)

    def body() -> None:
        with pytest.raises(RuntimeError, match=r"^Program.run: .*record"):
            done.run([X])

    record([], body)


def test_abort_leaves_no_recording() -> None:
    program = _core.Program([])
    program.begin()
    try:
        program.abort()
        assert not _core.recording()
    finally:
        if _core.recording():
            program.end()


@pytest.mark.parametrize(
    "change, raises, text",
    [
        (lambda X: [], ValueError, "must be 1 arrays?, got 0"),
        (lambda X: [X, X], ValueError, "must be 1 arrays?, got 2"),
        (lambda X: [X[:-1].copy()], ValueError, r"must be float32\(7,\), got float32\(6,\)"),
        (lambda X: [X[None]], ValueError, r"must be float32\(7,\), got float32\(1, 7\)"),
        (lambda X: [X.astype(float)], TypeError, r"must be float32\(7,\), got float64\(7,\)"),
        (lambda X: [X.tolist()], TypeError, "must be a NumPy array, got list"),
        (lambda X: [X[::-1]], ValueError, "contiguous"),
        (lambda X: [X.astype(">f4")], TypeError, "native"),
        (lambda X: [np.frombuffer(b"0" + X.tobytes(), f32, 7, 1)], ValueError, "aligned"),
    ],
)
def test_run_refuses_and_changes_nothing(change: Any, raises: type[Exception], text: str) -> None:
    X, Y = numbers(7), np.empty(7, f32)
    program = relu_program(X, Y)
    Y[...] = 5
    with pytest.raises(raises, match=rf"^[Pp]rogram.*{text}"):
        program.run(change(X))
    assert np.all(Y == 5)
    program.run([X])
    assert np.array_equal(Y, np.maximum(X, 0))


def test_an_output_slot_refuses_a_read_only_array() -> None:
    X, Y = numbers(7), np.zeros(7, f32)
    program = record([X, Y], lambda: _core.relu_forward(X, Y))
    out = np.zeros(7, f32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        program.run([X, out])
    assert not out.any()


def test_a_label_out_of_range_in_a_replay_changes_nothing() -> None:
    X, t, loss = numbers(3, 4), np.array([0, 3, 1]), np.empty(3, f32)
    H, dX = np.empty_like(X), np.empty_like(X)

    def body() -> None:
        _core.relu_forward(X, H)
        _core.cross_entropy_forward(X=H, t=t, loss=loss, dX=dX, reduction="sum")

    program = record([X, t], body)
    results = [a.copy() for a in (H, loss, dX)]
    with pytest.raises(ValueError, match=r"^cross_entropy_forward: t must be .* got 4 at row 1"):
        program.run([numbers(3, 4, seed=1), np.array([0, 4, 1])])
    for before, after in zip(results, (H, loss, dX), strict=True):
        assert before.tobytes() == after.tobytes()


def test_a_program_may_die_while_recording() -> None:
    code = """
        import gc
        import numpy as np
        from fastdl import _core

        X = np.ones(7, "f")
        program = _core.Program([X])
        program.begin()
        _core.relu_forward(X, np.empty_like(X))
        del program
        gc.collect()
        for _ in range(1000):
            _core.relu_forward(X, np.empty_like(X))
        assert not _core.recording()
    """
    python(code)
