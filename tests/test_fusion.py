"""Neighbours in a program become one call where no bit changes, and only there."""

import fastdl
import numpy as np
import pytest
from capture_steps import data
from fastdl import nn, ops
from fastdl._recording import rebuilt


def names(f):
    return [c["name"] for c in f.programs()[0].calls()]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_activations_ride_in_the_epilogue_of_affine(activation):
    layers = nn.Sequential(nn.Affine(4, 8), activation(), nn.Affine(8, 2))
    X, y = data()

    @fastdl.capture
    def gradients(X, y):
        layers.zero_grad()
        loss = ops.cross_entropy(layers(X), y)
        loss.backward()
        return [loss, *(p.grad for p in layers.parameters())]

    wanted = [t.numpy().copy() for t in gradients._fn(fastdl.Tensor(X), fastdl.Tensor(y))]
    for _ in range(3):
        got = gradients(X, y)
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(a.numpy(), b)
    assert names(gradients)[:3] == ["affine_forward", "affine_forward", "cross_entropy_forward"]


@pytest.mark.parametrize("training", [True, False])
def test_relu_rides_along_with_batch_norm(training):
    layers = [nn.BatchNorm1d(4).train(training) for _ in range(2)]

    def gradients(norm):
        def f(X):
            X.requires_grad_()
            norm.zero_grad()
            Y = ops.relu(norm(X))
            (Y * X).sum().backward()
            return Y, X.grad, norm.weight.grad, norm.bias.grad

        return f

    eager, captured = gradients(layers[0]), fastdl.capture(gradients(layers[1]))
    for seed in range(4):
        X = data(seed=seed)[0]
        for a, b in zip(captured(X), eager(fastdl.Tensor(X)), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert names(captured)[0] == "batch_norm_forward"
    assert "relu_forward" not in names(captured)


def test_calls_are_not_fused_over_the_heads_of_others():
    """The hidden values are used twice, kept outside, or changed in between."""
    layer, kept = nn.Affine(4, 4), []
    X = data()[0]

    def twice(X):
        H = layer(X)
        return ops.relu(H), ops.relu(ops.relu(H))

    def keeps(X):
        kept.append(layer(X))
        return ops.relu(kept[-1])

    def returns(X):
        H = layer(X)
        return ops.relu(H), H

    for fn in (twice, keeps, returns):
        with fastdl.no_grad():
            wanted = rebuilt(fn(fastdl.Tensor(X)), lambda t: t.numpy())
            f = fastdl.capture(fn)
            for _ in range(3):
                got = rebuilt(f(X), lambda t: t.numpy())
                np.testing.assert_array_equal(got, wanted)
        assert names(f)[:2] == ["affine_forward", "relu_forward"]


def test_a_result_that_goes_where_the_input_was_is_not_written_early():
    W, state = np.random.default_rng(0).normal(size=(2, 40, 40)).astype("f")
    start = state.copy()

    def advance():
        with fastdl.no_grad():
            ops.relu(ops.affine(fastdl.Tensor(state), fastdl.Tensor(W)), out=state)

    wanted = []
    for _ in range(4):
        advance()
        wanted.append(state.copy())
    state[...] = start
    f = fastdl.capture(advance)
    for want in wanted:
        f()
        np.testing.assert_array_equal(state, want)
    assert names(f) == ["affine_forward", "relu_forward"]


def test_an_input_must_not_be_what_the_program_writes():
    W, state = np.random.default_rng(0).normal(size=(2, 40, 40)).astype("f")

    def advance(X):
        with fastdl.no_grad():
            ops.relu(ops.affine(X, fastdl.Tensor(W)), out=state)

    f = fastdl.capture(advance)
    f(state)
    before = state.copy()
    for call in (lambda: f(state), lambda: f.run(state, batch_size=40, shuffle=False)):
        with pytest.raises(ValueError, match=r"input 0 must not share memory.*; pass a copy"):
            call()
        np.testing.assert_array_equal(state, before)
    f(state.copy())
    advance(fastdl.Tensor(before))


def test_an_output_that_a_call_in_between_reads_is_not_written_early():
    X, W = (np.random.default_rng(i).normal(size=(3, 3)).astype("f") for i in range(2))
    shared, out = np.full((3, 3), 5, "f"), np.empty((3, 3), "f")

    def body(X):
        with fastdl.no_grad():
            H = ops.affine(X, fastdl.Tensor(W))
            ops.relu(fastdl.Tensor(shared), out=out)
            ops.relu(H, out=shared)

    f = fastdl.capture(body)
    for _ in range(3):
        shared[...] = 5
        f(X)
        assert (out == 5).all()
        assert (shared != 5).any()
    assert names(f) == ["affine_forward", "relu_forward", "relu_forward"]


# ---- chains of element-wise calls -------------------------------------------------------------


def joined(f):
    return [c["joined"] for c in f.programs()[0].calls()]


def chain(X, Z):
    H = (X * 0.5 + Z) * Z - X
    return ops.tanh(H), ops.relu(H)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(300_001,), (4096 * 40,), (70, 91, 41)])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_element_wise_calls_run_block_by_block(dtype, shape, threads):
    fastdl.set_num_threads(threads)
    f = fastdl.capture(chain)
    for seed in range(3):
        X, Z = np.random.default_rng(seed).normal(size=(2, *shape)).astype(dtype)
        wanted = [t.numpy() for t in chain(fastdl.Tensor(X), fastdl.Tensor(Z))]
        for a, b in zip(f(X, Z), wanted, strict=True):
            np.testing.assert_array_equal(a.numpy(), b)
    assert joined(f) == [False, True, True, True, True, True]
    assert f.memory()[0]["temporaries"] == 0
    assert "+ tanh_forward" in str(f)


def test_gradients_of_chains():
    def f(X, Z):
        X.requires_grad_()
        (ops.tanh(X * Z) * ops.relu(X) + X).sum().backward()
        return X.grad

    captured = fastdl.capture(f)
    X, Z = np.random.default_rng(0).normal(size=(2, 300, 400))
    wanted = f(fastdl.Tensor(X), fastdl.Tensor(Z)).numpy()
    for _ in range(3):
        np.testing.assert_array_equal(captured(X, Z).numpy(), wanted)
    assert sum(joined(captured)) >= 5


def test_small_arrays_and_rows_are_no_chains():
    X, row = np.ones((500, 400), "f"), np.ones(400, "f")
    f = fastdl.capture(lambda X, Z: (X + Z) * Z)
    np.testing.assert_array_equal(f(X, row).numpy(), (X + row) * row)
    np.testing.assert_array_equal(f(X, row).numpy(), (X + row) * row)
    assert joined(f) == [False, False]
    g = fastdl.capture(lambda X, Z: (X + Z) * Z)
    g(row, row)
    assert joined(g) == [False, False]


def test_calls_that_shift_elements_are_not_joined():
    """Block by block, the second call would read what the first has not written yet."""
    a = np.arange(400_001, dtype=np.float32)

    def shift(X):
        with fastdl.no_grad():
            ops.add(X, 1, out=a[:-1])
            return ops.add(fastdl.Tensor(a[1:]), 1)

    f = fastdl.capture(shift)
    X = np.arange(400_000, dtype=np.float32)
    for i in range(3):
        a[-1] = 7
        got = f(X + i).numpy()
        np.testing.assert_array_equal(got, [*(X[1:] + i + 2), 8])
    assert joined(f) == [False, False]


def test_a_chain_writes_what_others_see():
    kept, out = [], np.zeros(300_000)

    def f(X):
        with fastdl.no_grad():
            H = X + 1
            kept.append(H)
            ops.mul(H, 2, out=out)
            ops.add(fastdl.Tensor(out), X, out=out)
            return ops.sum(H)

    captured = fastdl.capture(f)
    for i in range(3):
        X = np.full(300_000, float(i))
        assert captured(X).item() == 300_000 * (i + 1)
        np.testing.assert_array_equal(kept[0].numpy(), X + 1)
        np.testing.assert_array_equal(out, (X + 1) * 2 + X)
    assert joined(captured) == [False, True, True, False]
