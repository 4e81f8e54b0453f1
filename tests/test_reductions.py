"""sum, mean, amax and log_softmax over any dimensions, and smooth_l1_loss, as users call them."""

import fastdl
import numpy as np
import pytest
from fastdl import nn, ops
from fastdl.testing import assert_deterministic, gradcheck

DIMS = [None, (), 0, 1, 2, 3, -1, (0, 1), (1, 2), (2, 3), (0, 2), (0, 3), (1, 3), (0, 1, 3),
        (-1, 0), [1, 2], (0, 1, 2, 3)]  # fmt: skip
SHAPE = (3, 4, 5, 6)


def normal(shape, seed=0, dtype=np.float64):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def leaf(shape, seed=0):
    return fastdl.Tensor(normal(shape, seed), requires_grad=True)


def axis_of(dim):
    return None if dim is None or dim == () else tuple(dim) if isinstance(dim, list) else dim


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", DIMS, ids=str)
@pytest.mark.parametrize("op", [ops.sum, ops.mean], ids=["sum", "mean"])
def test_sum_and_mean_over_any_dimensions(op, dim, keepdim):
    X = normal(SHAPE)
    want = getattr(np, op.__name__)(X, axis=axis_of(dim), keepdims=keepdim)
    Y = op(X, dim, keepdim)
    assert Y.shape == want.shape
    np.testing.assert_allclose(Y, want, rtol=1e-13, atol=1e-14)
    method = getattr(fastdl.Tensor(X), op.__name__)
    assert np.array_equal(method(dim, keepdim=keepdim).numpy(), Y)


@pytest.mark.parametrize("dim", DIMS, ids=str)
@pytest.mark.parametrize("op", [ops.sum, ops.mean], ids=["sum", "mean"])
def test_gradients_of_sum_and_mean(op, dim):
    gradcheck(lambda x: op(x, dim), leaf((2, 3, 2, 2)))
    gradcheck(lambda x: op(x, dim, True), leaf((2, 3, 2, 2)))


def test_the_sum_of_ten_million_is_better_than_pairwise():
    x = np.random.default_rng(0).random(10_000_000, np.float32)
    truth = x.astype(np.float64).sum()
    assert abs(ops.sum(x) - truth) <= abs(x.sum() - truth)
    assert ops.sum(x) == np.float32(truth)
    assert ops.mean(x) == np.float32(truth / x.size)


def test_sums_have_the_same_bits_for_any_number_of_threads():
    fastdl._core.set_work_per_thread(1024)
    X = normal((50, 2000, 3), dtype=np.float32)
    for dim in (None, 0, 1, 2, (0, 2)):
        assert_deterministic(ops.sum, X, dim)


def test_empty_and_0d():
    assert ops.sum(np.zeros((0, 3))).item() == 0 and np.isnan(ops.mean(np.zeros((0, 3))))
    assert ops.sum(np.zeros((0, 3)), 0).tolist() == [0, 0, 0]
    assert ops.sum(np.zeros((0, 3)), 1).shape == (0,)
    assert ops.mean(np.array(2.5), 0).item() == 2.5 and ops.sum(np.array(2.5)).shape == ()
    x = leaf((0, 3))
    x.mean().backward()
    assert x.grad.shape == (0, 3)
    gradcheck(ops.mean, leaf(()))


@pytest.mark.parametrize("dim", [None, 0, 1, 2, -1, (0, 1), (1, 2), (0, 1, 2)], ids=str)
def test_amax(dim):
    X = normal((3, 4, 5))
    assert np.array_equal(ops.amax(X, dim), X.max(axis=dim))
    assert np.array_equal(ops.amax(X, dim, True), X.max(axis=dim, keepdims=True))
    gradcheck(lambda x: x.amax(dim), leaf((3, 4, 5)))


def test_amax_shares_the_gradient_among_equals():
    x = fastdl.Tensor(np.array([[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]]), requires_grad=True)
    x.amax(1).backward(np.array([1.0, 4.0]))
    assert x.grad.tolist() == [[0, 0.5, 0.5], [4, 0, 0]]


@pytest.mark.parametrize("op", [ops.sum, ops.mean, ops.amax], ids=["sum", "mean", "amax"])
def test_refused_dimensions(op):
    X, name = normal((2, 3, 4)), op.__name__
    for dim in (3, -4, (0, 3)):
        with pytest.raises(ValueError, match=rf"^{name}: dim must be in \[-3, 3\), got"):
            op(X, dim)
    with pytest.raises(ValueError, match=f"^{name}: dim must name each dimension once"):
        op(X, (1, -2))
    with pytest.raises(TypeError, match="integer"):
        op(X, 1.5)
    with pytest.raises(TypeError, match=r"X must be float32.float64"):
        op(np.arange(6), 0)


def test_amax_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"^amax: dim must name neighbouring dimensions"):
        ops.amax(normal((2, 3, 4)), (0, 2))
    with pytest.raises(ValueError, match="must have an element"):
        ops.amax(np.zeros((2, 0)), 1)


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
def test_log_softmax_over_any_dimension(dim):
    X = normal((3, 4, 5))
    want = X - np.log(np.exp(X).sum(axis=dim, keepdims=True))
    np.testing.assert_allclose(ops.log_softmax(X, dim), want, rtol=1e-13)
    assert np.array_equal(fastdl.Tensor(X).log_softmax(dim).numpy(), ops.log_softmax(X, dim))
    gradcheck(lambda x: x.log_softmax(dim), leaf((3, 4, 5)))
    dY, x = normal((3, 4, 5), 1), fastdl.Tensor(X, requires_grad=True)
    Y = x.log_softmax(dim)
    Y.backward(dY)
    assert np.array_equal(ops.log_softmax_backward(dY, Y.numpy(), dim), x.grad.numpy())


def test_log_softmax_refusals():
    with pytest.raises(ValueError, match=r"log_softmax: X must have a dimension, got float64\(\)"):
        ops.log_softmax(np.array(1.0))
    with pytest.raises(ValueError, match=r"log_softmax: dim must be in \[-2, 2\), got 2"):
        ops.log_softmax(normal((2, 3)), 2)
    with pytest.raises(ValueError, match=r"dY must have the shape of Y"):
        ops.log_softmax_backward(normal((2, 3)), normal((3, 2)))


def test_log_softmax_and_gather_are_the_cross_entropy():
    X, t = leaf((7, 5)), np.arange(7) % 5
    loss = -X.log_softmax().gather(1, t).mean()
    np.testing.assert_allclose(loss.item(), ops.cross_entropy(X.numpy(), t), rtol=1e-14)
    loss.backward()
    np.testing.assert_allclose(
        X.grad.numpy(), ops.cross_entropy_backward(None, X.numpy(), t), rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_smooth_l1_loss(reduction, beta):
    X, T = leaf((4, 5)), leaf((4, 5), 1)
    d = np.abs(X.numpy() - T.numpy())
    loss = np.where(d < beta, d * d / (2 * (beta or 1)), d - beta / 2)
    want = loss if reduction == "none" else getattr(loss, reduction)()
    module = nn.SmoothL1Loss(reduction, beta)
    np.testing.assert_allclose(module(X, T).numpy(), want, rtol=1e-13)
    gradcheck(module, [X, T])
    dX = ops.smooth_l1_loss_backward(None, X.numpy(), T.numpy(), reduction, beta)
    Y = module(X, T)
    Y.backward(np.ones(Y.shape))
    np.testing.assert_array_equal(X.grad.numpy(), dX)
    np.testing.assert_array_equal(T.grad.numpy(), -dX)


def test_smooth_l1_loss_refusals():
    with pytest.raises(ValueError, match=r"^SmoothL1Loss: beta must be >= 0, got -1"):
        nn.SmoothL1Loss(beta=-1)
    with pytest.raises(ValueError, match=r"^SmoothL1Loss: reduction must be one of"):
        nn.SmoothL1Loss("max")
