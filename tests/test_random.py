"""Generators: one seed for everything, streams that do not repeat."""

import fastdl
import numpy as np
import pytest
from fastdl import nn, ops


def test_the_same_seed_gives_the_same_everything():
    def everything():
        fastdl.manual_seed(7)
        W = nn.Affine(4, 3).W.numpy().copy()
        order = fastdl.random.default_generator.numpy().permutation(10)
        return W, order, ops.dropout(np.ones(50, "f4"))

    for a, b in zip(everything(), everything(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_seed_and_another_draw_give_other_numbers():
    a, b = fastdl.Generator(1), fastdl.Generator(2)
    first = a.numpy().random(8)
    assert not np.array_equal(first, b.numpy().random(8))
    assert not np.array_equal(first, a.numpy().random(8))
    x = np.ones(200)
    assert not np.array_equal(ops.dropout(x, generator=a), ops.dropout(x, generator=a))


def test_state_can_be_kept_and_restored():
    g = fastdl.Generator(3)
    g.numpy()
    kept = g.get_state()
    first = ops.dropout(np.ones(100), generator=g)
    second = ops.dropout(np.ones(100), generator=g)
    g.set_state(kept)
    np.testing.assert_array_equal(ops.dropout(np.ones(100), generator=g), first)
    np.testing.assert_array_equal(ops.dropout(np.ones(100), generator=g), second)
    np.testing.assert_array_equal(kept, [3, 1])


def test_manual_seed_acts_in_place():
    state = fastdl.random.default_generator.state
    assert fastdl.manual_seed(11) is fastdl.random.default_generator
    np.testing.assert_array_equal(state, [11, 0])


@pytest.mark.parametrize(
    ("seed", "error"), [(-1, ValueError), (2**63, ValueError), (1.5, TypeError), ("1", TypeError)]
)
def test_bad_seeds_change_nothing(seed, error):
    fastdl.manual_seed(5)
    with pytest.raises(error):
        fastdl.manual_seed(seed)
    np.testing.assert_array_equal(fastdl.random.default_generator.state, [5, 0])


@pytest.mark.parametrize("state", [[1, 2, 3], [1.0, 2.0], [-1, 0]])
def test_bad_states_change_nothing(state):
    g = fastdl.Generator(5)
    with pytest.raises(ValueError, match=r"state must be int64\(2\)"):
        g.set_state(np.array(state))
    np.testing.assert_array_equal(g.state, [5, 0])


@pytest.mark.parametrize("p", [0.3, 0.0, 1.0])
def test_dropout_after_relu_in_one_pass_has_the_bits_of_two(p):
    X = np.random.default_rng(0).normal(size=(20, 7)).astype("f4")
    dY = np.ones_like(X)
    results = []
    for fused in (True, False):
        x, g = fastdl.Tensor(X, requires_grad=True), fastdl.Generator(3)
        if fused:
            Y = ops.dropout(x, p, activation="relu", generator=g)
        else:
            Y = ops.dropout(ops.relu(x), p, generator=g)
        Y.backward(dY)
        results.append((Y.numpy(), x.grad.numpy()))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
    raw = ops.dropout_backward(dY, None, p, activation="relu", Y=results[0][0])
    np.testing.assert_array_equal(raw, results[0][1])
    np.testing.assert_array_equal(ops.dropout(X, p, False, activation="relu"), np.maximum(X, 0))
    with pytest.raises(ValueError, match="dropout: activation must be None or 'relu', got 'tanh'"):
        ops.dropout(X, activation="tanh")


@pytest.mark.parametrize("below", ["affine", "batch_norm"])
def test_dropout_takes_the_derivative_of_relu_below_once(below):
    """Where dropout is the only user of relu's result; where it is not, the bits are the same."""
    rng = np.random.default_rng(0)
    X, dY = rng.normal(size=(2, 20, 7)).astype("f4")
    kinds = {
        "affine": lambda: nn.Affine(7, 7, activation="relu"),
        "batch_norm": lambda: nn.BatchNorm1d(7, activation="relu"),
    }

    def gradients(used_twice):
        fastdl.manual_seed(3)
        layer = kinds[below]()
        x = fastdl.Tensor(X, requires_grad=True)
        A = layer(x)
        Y = ops.dropout(A, 0.4)
        (ops.add(Y, ops.mul(A, 0.0)) if used_twice else Y).backward(dY)
        return [x.grad.numpy(), *(p.grad.numpy() for p in layer.parameters())]

    for once, twice in zip(gradients(False), gradients(True), strict=True):
        np.testing.assert_array_equal(once, twice)


@pytest.mark.parametrize("norm", [None, "batch"])
def test_a_recorded_step_makes_no_random_numbers_backward_after_relu(norm):
    model = nn.MLP(5, 8, 3, norm=norm, dropout=0.5)

    @fastdl.capture
    def step(X):
        model.zero_grad()
        Y = model(X)
        ops.sum(Y).backward()
        return Y

    step(np.random.default_rng(0).normal(size=(4, 5)).astype("f4"))
    (text,) = [line for line in str(step).splitlines() if "dropout_backward" in line]
    assert ", Y float32(4, 8)" in text
