"""layer_norm on the tape, as a layer, and by hand."""

import fastdl
import numpy as np
import pytest
from fastdl import nn, ops


def leaf(*shape, seed=0, dtype=np.float64):
    return fastdl.Tensor(
        np.random.default_rng(seed).normal(size=shape).astype(dtype), requires_grad=True
    )


@pytest.mark.parametrize("shape, axes", [((4, 3), 1), ((2, 3, 4), 2), ((5,), 1)])
def test_layer_norm_of_any_rank_has_the_right_gradient(shape, axes):
    last = shape[-axes:]

    def fn(X, w, b):
        return ops.layer_norm(X, last, w, b)

    fastdl.testing.gradcheck(fn, (leaf(*shape), leaf(*last, seed=1), leaf(*last, seed=2)))
    fastdl.testing.gradcheck(lambda X: ops.layer_norm(X, last), leaf(*shape))
    fastdl.testing.gradcheck(lambda w: ops.layer_norm(np.ones(shape), last, w), leaf(*last))


def test_layer_norm_adds_to_gradients_and_names_what_is_wrong():
    X, w, b = leaf(4, 3), leaf(3, seed=1), leaf(3, seed=2)
    d = np.random.default_rng(3).normal(size=(4, 3))
    ops.layer_norm(X, 3, w, b).backward(d)
    once = [t.grad.numpy().copy() for t in (X, w, b)]
    ops.layer_norm(X, 3, w, b).backward(d)
    for t, g in zip((X, w, b), once, strict=True):
        np.testing.assert_array_equal(t.grad.numpy(), 2 * g)
    with pytest.raises(ValueError, match=r"layer_norm: X must have the shape \(\.\.\., 4, 3\)"):
        ops.layer_norm(np.ones((3, 3)), (4, 3))
    with pytest.raises(ValueError, match=r"layer_norm: normalized_shape must have an axis"):
        ops.layer_norm(np.ones((3, 3)), ())
    with pytest.raises(ValueError, match=r"layer_norm: bias must have the shape \(3,\), got"):
        ops.layer_norm(np.ones((2, 3)), 3, None, np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"layer_norm_backward: dY must have the shape of X"):
        ops.layer_norm_backward(np.ones((3, 2)), np.ones((2, 3)), 3, np.ones(2), np.ones(2))


def test_layer_norm_by_hand_agrees_with_the_tape():
    X, w = leaf(2, 3, 4), leaf(3, 4, seed=1)
    x = X.numpy().reshape(2, 12)
    d = np.random.default_rng(4).normal(size=(2, 3, 4))
    ops.layer_norm(X, (3, 4), w, bias := leaf(3, 4, seed=2)).backward(d)
    mean, rstd = x.mean(1), 1 / np.sqrt(x.var(1) + 1e-5)
    raw = ops.layer_norm_backward(d, X.numpy(), (3, 4), mean, rstd, w.numpy())
    for r, t in zip(raw, (X, w, bias), strict=True):
        np.testing.assert_allclose(r, t.grad.numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("shape", [5, (3, 5), [2, 3, 5]])
def test_layer_norm_layer_follows_torch(shape):
    layer = nn.LayerNorm(shape, dtype=np.float64)
    axes = layer.normalized_shape
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert layer.weight.shape == layer.bias.shape == axes
    rng = np.random.default_rng(0)
    layer.weight._array[...], layer.bias._array[...] = rng.normal(size=(2, *axes))
    X = rng.normal(size=(4, 2, 3, 5)) * 2 + 1
    last = tuple(range(-len(axes), 0))
    mean, var = X.mean(last, keepdims=True), X.var(last, keepdims=True)
    expected = (X - mean) / np.sqrt(var + 1e-5) * layer.weight.numpy() + layer.bias.numpy()
    np.testing.assert_allclose(layer(X), expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(layer.eval()(X), expected, rtol=1e-12, atol=1e-13)


def test_layer_norm_options():
    assert list(nn.LayerNorm(4, bias=False).state_dict()) == ["weight"]
    bare = nn.LayerNorm(4, 0.5, elementwise_affine=False)
    assert bare.state_dict() == {}
    assert repr(bare) == "LayerNorm((4,), eps=0.5, elementwise_affine=False)"
    assert repr(nn.LayerNorm([2, 4], bias=False)) == (
        "LayerNorm((2, 4), eps=1e-05, elementwise_affine=True, bias=False)"
    )
    with pytest.raises(ValueError, match=r"LayerNorm: normalized_shape must have an axis"):
        nn.LayerNorm(())
    with pytest.raises(TypeError, match=r"LayerNorm: normalized_shape must be an int, got 2\.5"):
        nn.LayerNorm((3, 2.5))
    with pytest.raises(ValueError, match=r"layer_norm: X must have the shape \(\.\.\., 4\), got"):
        bare(np.ones((4, 5), np.float32))


@pytest.mark.emulated
def test_layer_norm_keeps_the_digits_of_rows_far_from_zero(backend):
    """The rounded mean of such a row is off by many units of the result."""
    X = (1e4 + np.random.default_rng(0).normal(size=(20, 300))).astype(np.float32)
    exact = X - X.astype(np.float64).mean(1, keepdims=True)
    exact /= np.sqrt((exact**2).mean(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(nn.LayerNorm(300)(X), exact, rtol=0, atol=3e-6)
    equal = np.full((3, 300), 12345.678, np.float32)
    np.testing.assert_array_equal(nn.LayerNorm(300)(equal), 0)
