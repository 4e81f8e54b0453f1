"""gather and Tensor[key]: what NumPy and torch give, gradients, refusals, replay."""

import fastdl
import numpy as np
import pytest
from fastdl import ops
from fastdl.testing import gradcheck

KEYS = [
    0, -1, 2, slice(1, 3), slice(None), slice(None, None, 2), slice(None, None, -1), slice(3, 3),
    ..., (0, 1), (1, slice(1, 4)), (slice(0, 2), slice(None), 3), (..., 0), (..., slice(1, 3)),
    (slice(None), 1), (0, ..., slice(4, 1, -2)), (slice(1, None), slice(None, -1), slice(0, 5, 3)),
    (1, 2, 3), (), np.int64(1), (slice(5, 9), slice(None)),
]  # fmt: skip


def normal(shape, seed=0, dtype=np.float64):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def leaf(shape, seed=0):
    return fastdl.Tensor(normal(shape, seed), requires_grad=True)


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_basic_indexing(key):
    x = leaf((3, 4, 5))
    want = np.asarray(x.numpy()[key])
    y = x[key]
    assert y.shape == want.shape and np.array_equal(y.numpy(), want)
    assert np.array_equal(ops.getitem(x.numpy(), key), want)
    y.backward(normal(y.shape, 1))
    dX = np.zeros((3, 4, 5))
    dX[key] = normal(y.shape, 1)
    assert np.array_equal(x.grad.numpy(), dX)
    if y.size:
        gradcheck(lambda t: t[key] * t[key], x)


def test_a_contiguous_part_shares_memory():
    x = fastdl.Tensor(normal((4, 3)))
    assert np.shares_memory(x[1:3].numpy(), x.numpy())
    assert not np.shares_memory(x[:, 1].numpy(), x.numpy())


def test_tensors_iterate_over_their_rows():
    x = fastdl.Tensor(normal((4, 3)))
    assert [row.tolist() for row in x] == x.tolist()


def test_integers_can_be_indexed_too():
    t = fastdl.Tensor(np.arange(6).reshape(2, 3))
    assert t[1, ::2].tolist() == [3, 5]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_one_element_of_each_row(dtype):
    Q, action = leaf((6, 3)), np.array([0, 2, 1, 1, 0, 2], dtype)
    want = Q.numpy()[np.arange(6), action]
    for picked in (
        Q.gather(1, action), Q.gather(-1, action[:, None])[:, 0], Q[np.arange(6), action],
        ops.gather(Q, 1, fastdl.Tensor(action)),
    ):  # fmt: skip
        assert picked.shape == (6,) and np.array_equal(picked.numpy(), want)
    gradcheck(lambda q: q[np.arange(6), action], Q)
    assert isinstance(ops.gather(Q.numpy(), 1, action), np.ndarray)


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_gather_along_any_dimension(dim):
    X = leaf((3, 4, 5))
    shape = [3, 4, 5]
    shape[dim] = 7
    index = np.random.default_rng(1).integers(0, X.shape[dim], shape)
    Y = X.gather(dim, index)
    assert np.array_equal(Y.numpy(), np.take_along_axis(X.numpy(), index, dim))
    gradcheck(lambda x: x.gather(dim, index), X)
    without = index.take(0, dim)
    assert np.array_equal(X.gather(dim, without).numpy(), Y.numpy().take(0, dim))


def test_gather_of_a_vector():
    x = normal((5,))
    assert np.array_equal(ops.gather(x, 0, np.array([4, 4, 0])), x[[4, 4, 0]])
    assert ops.gather(x, 0, np.array(3)).item() == x[3]


def test_gather_refusals():
    X = normal((3, 4))
    for index in ([[0], [4], [1]], [[0], [-1], [1]]):
        with pytest.raises(ValueError, match=r"index must be in \[0, 4\), .* got (4|-1) at el"):
            ops.gather(X, 1, np.array(index))
    with pytest.raises(ValueError, match=r"^gather: index must have the shape of X.*got int64\(2"):
        ops.gather(X, 1, np.zeros((2, 1), np.int64))
    with pytest.raises(ValueError, match=r"^gather: index must have the shape of X"):
        ops.gather(np.array(1.0), 0, np.array(0))
    with pytest.raises(ValueError, match=r"^gather: dim must be in \[-2, 2\), got 2"):
        ops.gather(X, 2, np.zeros((3, 1), np.int64))
    with pytest.raises(TypeError, match=r"index must be int32.int64"):
        ops.gather(X, 1, np.zeros((3, 1)))


def test_a_replay_checks_indices_before_anything_is_written():
    total = np.zeros((3,), np.float32)

    @fastdl.capture
    def step(Q, action):
        picked = Q.gather(1, action)
        ops.add(fastdl.Tensor(total), picked, out=total)
        return picked

    Q = normal((3, 4), dtype=np.float32)
    step(Q, np.array([0, 1, 2]))
    step(Q, np.array([3, 3, 3]))
    before = total.copy()
    assert before.any()
    with pytest.raises(ValueError, match=r"index must be in \[0, 4\).*got 9 at element 1"):
        step(Q, np.array([0, 9, 2]))
    assert np.array_equal(total, before)


def test_captured_slices():
    @fastdl.capture
    def step(x):
        a, b = x[:, :2], x[:, 2:]
        return (a * b)[1:]

    for k in range(3):
        x = normal((4, 4), k, np.float32)
        assert np.array_equal(step(x).numpy(), (x[:, :2] * x[:, 2:])[1:])


def test_a_captured_step_takes_labels_as_they_lie():
    # Indices are checked before the first kernel runs: a copy made by a kernel would come too late.
    @fastdl.capture
    def step(Q, actions, column):
        return Q.gather(1, actions[:, 1] if column else actions[1])

    Q, actions = normal((2, 4)), np.array([[0, 1], [2, 3]])
    assert step(Q, actions, False).tolist() == [Q[0, 2], Q[1, 3]]
    with pytest.raises(fastdl.CaptureError, match="part of an integer array"):
        step(Q, actions, True)


@pytest.mark.parametrize(
    "key, raises, text",
    [
        (5, IndexError, "out of bounds"),
        ((0, 0, 0), IndexError, "at most 2 indices"),
        ((..., ...), IndexError, "one ..."),
        (None, TypeError, "got NoneType"),
        (True, TypeError, "got bool"),
        ([0, 1], TypeError, "got list"),
        (np.array([0, 1]), TypeError, "got ndarray.*gather"),
        (np.ones((3, 4), bool), TypeError, "got ndarray"),
        ((np.array([1, 0, 2]), np.array([0, 0, 0])), ValueError, "rows must be 0, 1, 2"),
        ((np.array([0, 1]), np.array([0, 0])), ValueError, "rows must be 0, 1, 2"),
        ((np.arange(3), np.array([0, 0, -1])), ValueError, "got -1"),
        ("a", TypeError, "got str"),
    ],
    ids=str,
)
def test_refused_keys(key, raises, text):
    with pytest.raises(raises, match=text):
        fastdl.Tensor(normal((3, 4)))[key]
