"""The derivative of an activation: taken by the operation above if it can, else by its own."""

import fastdl
import numpy as np
import pytest
from fastdl import ops, tape


def leaf(*shape, seed=0):
    return fastdl.Tensor(np.random.default_rng(seed).normal(size=shape), requires_grad=True)


def below(activation, own_op):
    """h = act(x V): as one operation, or as two."""
    x, V = leaf(7, 5, seed=4), leaf(5, 6, seed=5)
    h = getattr(ops, activation)(ops.affine(x, V)) if own_op else ops.affine(x, V, None, activation)
    return h, (x, V)


def calls_of(monkeypatch, name):
    """The positional arguments of every call of a kernel from now on."""
    real, calls = getattr(fastdl._core, name), []
    monkeypatch.setattr(fastdl._core, name, lambda *a: (calls.append(a), real(*a))[1])
    return calls


@pytest.mark.parametrize("own_op", [False, True])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_layer_above_takes_the_derivative_with_the_same_bits(monkeypatch, activation, own_op):
    calls = calls_of(monkeypatch, "affine_backward")

    def gradients():
        h, leaves = below(activation, own_op)
        leaves += (leaf(6, 3, seed=6), leaf(3, seed=7))
        Y = ops.affine(h, *leaves[2:])
        for n in (1, 2):
            Y.backward(leaf(7, 3, seed=8).numpy(), retain_graph=n == 1)
        return [t.grad.numpy() for t in leaves]

    fused = gradients()
    upper, lower = calls[:2]
    assert upper[9] == activation and lower[7] == "none"
    monkeypatch.setattr(tape.Pass, "take_derivative", lambda self, t: "none")
    for a, b in zip(fused, gradients(), strict=True):
        assert a.tobytes() == b.tobytes()
    assert calls[-2][9] == "none" and calls[-1][7] == ("none" if own_op else activation)


@pytest.mark.parametrize("own_op", [False, True])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_result_used_twice_takes_its_own_derivative(monkeypatch, activation, own_op):
    calls = calls_of(monkeypatch, "affine_backward")
    h, (x, V) = below(activation, own_op)
    W = leaf(6, 6, seed=6)
    loss = ops.mse_loss(ops.affine(h, W), h, reduction="sum")
    loss.backward()
    assert calls[0][9] == "none"
    H, Z = h.numpy(), x.numpy() @ V.numpy()
    dY = 2 * (H @ W.numpy() - H)
    slope = (Z > 0) if activation == "relu" else 1 - np.tanh(Z) ** 2
    dZ = (dY @ W.numpy().T - dY) * slope
    np.testing.assert_allclose(V.grad.numpy(), x.numpy().T @ dZ, rtol=1e-12, atol=1e-13)
    # Where another pass sees one use only, that pass may take it.
    x.grad = V.grad = W.grad = None
    h, (x, V) = below(activation, own_op)
    ops.affine(h, W)  # a second use, but not in this pass
    ops.affine(h, W).backward(dY)
    assert calls[-2][9] == activation
    np.testing.assert_allclose(
        V.grad.numpy(), x.numpy().T @ (dY @ W.numpy().T * slope), rtol=1e-12, atol=1e-13
    )


def test_an_activation_at_the_root_or_of_a_leaf_takes_its_own_derivative():
    x = leaf(4, 3)
    Y = ops.tanh(x)
    Y.backward(np.ones((4, 3)))
    np.testing.assert_allclose(x.grad.numpy(), 1 - np.tanh(x.numpy()) ** 2, rtol=1e-13)
    x.grad = None
    W = leaf(3, 2, seed=1)
    ops.affine(ops.relu(x), W).backward(np.ones((4, 2)))
    want = (x.numpy() > 0) * (np.ones((4, 2)) @ W.numpy().T)
    np.testing.assert_allclose(x.grad.numpy(), want, rtol=1e-13)
