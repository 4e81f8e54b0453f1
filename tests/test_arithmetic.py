"""add, sub, mul and the operators of Tensor: broadcasting, numbers, gradients, mixed operands."""

import operator

import fastdl
import numpy as np
import pytest
from fastdl import nn, ops
from fastdl.testing import assert_deterministic, gradcheck

OPS = [(ops.add, operator.add), (ops.sub, operator.sub), (ops.mul, operator.mul)]
SHAPES = [
    ((3, 5), (3, 5)),
    ((3, 5), ()),
    ((), (3, 5)),
    ((3, 5), (1,)),
    ((4, 3, 5), (5,)),
    ((5,), (4, 3, 5)),
    ((3, 5), (3, 1)),
    ((3, 1), (1, 5)),
    ((4, 3, 5), (3, 1)),
    ((4, 1, 5), (1, 3, 1)),
    ((2, 1, 3, 1, 2), (4, 1, 5, 2)),
    ((2, 1, 3, 1, 2, 1), (1, 4, 1, 5, 1, 3)),
    ((1, 1), (1, 3)),
    ((0, 3), (3,)),
    ((0, 3), (1, 1)),
    ((1,), (0,)),
    ((700, 33), (33,)),
    ((700, 33), (700, 1)),
]
each_op = pytest.mark.parametrize("op, plain", OPS, ids=["add", "sub", "mul"])
each_shape = pytest.mark.parametrize("a, b", SHAPES, ids=str)


def normal(shape, seed=0, dtype=np.float32):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def leaf(shape, seed=0):
    return fastdl.Tensor(normal(shape, seed, np.float64), requires_grad=True)


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_shape
@each_op
def test_shapes_broadcast_as_in_numpy(op, plain, a, b, dtype, backend):
    X, other = normal(a, 0, dtype), normal(b, 1, dtype)
    Y = op(X, other)
    assert Y.dtype == dtype and np.array_equal(Y, plain(X, other))
    T = op(fastdl.Tensor(X), other)
    assert isinstance(T, fastdl.Tensor) and np.array_equal(T.numpy(), Y)
    fastdl.set_num_threads(3)
    assert np.array_equal(op(X, other), Y)


@pytest.mark.parametrize("a, b", [s for s in SHAPES if np.prod(s[0] + s[1]) < 1000], ids=str)
@each_op
def test_gradients_sum_over_what_was_broadcast(op, plain, a, b):
    if 0 not in a + b:
        gradcheck(op, [leaf(a), leaf(b, 1)])
        gradcheck(plain, [leaf(a), leaf(b, 1)])
        gradcheck(lambda x: op(x, normal(b, 1, np.float64)), leaf(a))
    X, other = leaf(a), leaf(b, 1)
    Y = op(X, other)
    Y.backward(np.ones(Y.shape))
    assert X.grad.shape == a and other.grad.shape == b


def test_a_broadcast_gradient_has_the_same_bits_for_any_number_of_threads():
    X, b = normal((5000, 70)), normal((70,), 1)
    fastdl._core.set_work_per_thread(1024)

    def gradient():
        t = fastdl.Tensor(b, requires_grad=True)
        (fastdl.Tensor(X) * t).sum().backward()
        return t.grad

    assert_deterministic(gradient)


def test_one_tensor_as_both_operands():
    x = leaf((3,))
    (x * x + x - x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * x.numpy())


def test_a_gradient_that_two_operands_share_stays_apart():
    # add hands one array to both; adding to the first must not change the second.
    x, y = leaf((3,)), leaf((3,), 1)
    a, b = ops.relu(x), ops.relu(y)
    (a + b + a).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2.0 * (x.numpy() > 0))
    np.testing.assert_array_equal(y.grad.numpy(), 1.0 * (y.numpy() > 0))


def test_a_gradient_of_another_shape_stays_apart_too():
    # (1, 3) and (3,) have the same elements: the gradient of one is the other's, reshaped.
    x, y = leaf((3,)), leaf((1, 3), 1)
    a, b = x * 1, y * 1
    (a + b + a).sum().backward()
    assert x.grad.tolist() == [2, 2, 2] and y.grad.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("number", [2, 0.5, np.float32(0.5), np.float64(0.5), np.int64(3), True])
def test_numbers_take_the_dtype_of_the_array(number):
    X = normal((4, 3))
    t = fastdl.Tensor(X)
    n = np.float32(number)
    for got, want in [
        (t + number, X + n), (number + t, n + X), (t - number, X - n), (number - t, n - X),
        (t * number, X * n), (number * t, n * X), (-t, -X),
    ]:  # fmt: skip
        assert isinstance(got, fastdl.Tensor) and got.dtype == np.float32
        assert np.array_equal(got.numpy(), want)
    gradcheck(lambda x: (number - x) * number, leaf((4, 3)))


def test_negation_keeps_signed_zeros():
    zeros = -fastdl.Tensor(np.array([0.0, -0.0]))
    assert np.signbit(zeros.numpy()).tolist() == [True, False]


def test_arrays_leave_operators_to_tensors():
    X, t = normal((3, 4)), fastdl.Tensor(normal((3, 4), 1))
    for Y in (X + t, X - t, X * t, X[:, :1] + t, np.float32(2) * t):
        assert isinstance(Y, fastdl.Tensor)
    assert np.array_equal((X - t).numpy(), X - t.numpy())


def test_matrix_product():
    X, W = leaf((5, 3)), leaf((3, 4), 1)
    np.testing.assert_allclose((X @ W).numpy(), X.numpy() @ W.numpy())
    np.testing.assert_array_equal((X.numpy() @ W).numpy(), (X @ W).numpy())
    gradcheck(operator.matmul, [X, W])


def test_in_place_operators_make_a_new_tensor():
    x = leaf((3,))
    before, y = x.numpy().copy(), x
    y += 1
    assert y is not x and np.array_equal(x.numpy(), before)


@each_op
def test_out_may_be_an_operand(op, plain):
    X, other = normal((3, 4)), normal((4,), 1)
    want = plain(X, other)
    assert op(X, other, out=X) is X
    assert np.array_equal(X, want)


@each_op
def test_refusals(op, plain):
    name, X = op.__name__, normal((3, 4))
    with pytest.raises(ValueError, match=rf"^{name}: other must broadcast with X, .*3, 4.*3, 5"):
        op(X, normal((3, 5)))
    with pytest.raises(TypeError, match=r"other must be float32.*the dtype of X.*got float64"):
        op(X, normal((4,), dtype=np.float64))
    with pytest.raises(TypeError, match=r"X must be float32.float64"):
        op(np.arange(3), 2)
    with pytest.raises(TypeError, match=f"{name}: X must be an ndarray or a Tensor, got float"):
        op(1.0, 2.0)
    with pytest.raises(TypeError, match=f"{name}: other must be an ndarray or a Tensor, got list"):
        op(X, [1, 2])
    with pytest.raises(ValueError, match=rf"{name}: other must be .*float32 can hold, got 1e\+300"):
        op(X, 1e300)
    with pytest.raises(TypeError):
        plain(fastdl.Tensor(X), "a")
    with pytest.raises(ValueError, match="at most 6 dimensions"):
        op(normal((1,) * 7), 1)
    assert np.isposinf(ops.add(X, np.inf)).all()


def test_a_captured_step_freezes_numbers_and_reads_arrays():
    scale = np.array(2.0, np.float32)

    @fastdl.capture
    def step(x, s):
        return (x * 0.5 + s) * s - scale

    for k in range(4):
        x, s = normal((4, 3), k), np.array(k, np.float32)
        scale[...] = 10 * k
        want = (x * np.float32(0.5) + s) * s - scale
        assert np.array_equal(step(x, s).numpy(), want)
    assert len(step.programs()) == 1


def test_a_captured_actor_critic_update_gives_the_bits_of_the_plain_one():
    def run(wrapper):
        fastdl.manual_seed(1)
        model = nn.MLP(4, 16, 3)
        opt = fastdl.optim.Adam(model.parameters(), lr=1e-2)

        @wrapper
        def step(X, action, advantage):
            opt.zero_grad()
            logp = model(X).log_softmax()
            loss = -(logp.gather(1, action) * advantage).mean() + 0.01 * logp.sum(1).mean()
            loss.backward()
            opt.step()
            return loss

        losses = []
        for k in range(10):
            action = np.random.default_rng(k).integers(0, 3, 32)
            X, advantage = fastdl.Tensor(normal((32, 4), k)), fastdl.Tensor(normal((32,), k + 1))
            losses.append(step(X, action, advantage).item())
        return losses, [p.numpy().tobytes() for p in model.parameters()]

    assert run(fastdl.capture) == run(lambda fn: fn)
