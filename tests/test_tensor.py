"""Tensors: what they hold, what they share, and how their gradients can be set."""

import copy
import pickle

import fastdl
import numpy as np
import pytest
from fastdl import nn, ops, optim


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "u1"])
def test_tensor_shares_contiguous_memory(dtype):
    a = np.arange(6).reshape(2, 3).astype(dtype)
    t = fastdl.Tensor(a)
    assert (t.shape, t.dtype, t.ndim, t.size, t.device) == ((2, 3), a.dtype, 2, 6, "cpu")
    a[0, 0] = 9
    assert t.numpy()[0, 0] == 9
    assert np.asarray(t) is not None
    assert np.shares_memory(np.asarray(t), a)


@pytest.mark.parametrize(
    "layout",
    [lambda a: np.asfortranarray(a), lambda a: a[::-1], lambda a: a[:, ::2], lambda a: a.T],
    ids=["fortran", "reversed", "strided", "transposed"],
)
def test_tensor_copies_any_other_layout(layout):
    a = layout(np.arange(12.0).reshape(3, 4))
    t = fastdl.Tensor(a)
    assert t.numpy().flags.c_contiguous
    np.testing.assert_array_equal(t.numpy(), a)


def test_tensor_copies_unaligned_memory():
    raw = np.zeros(33, np.uint8)
    a = raw[1:].view(np.float64)
    a[:] = [1, 2, 3, 4]
    assert not a.flags.aligned
    np.testing.assert_array_equal(ops.relu(a), [1, 2, 3, 4])
    assert fastdl.Tensor(a).numpy().flags.aligned


def test_tensor_of_nothing_and_of_one():
    assert fastdl.Tensor(np.zeros((0, 3))).shape == (0, 3)
    t = fastdl.Tensor(np.float32(2.5))
    assert (t.shape, t.item(), float(t), int(t), bool(t)) == ((), 2.5, 2.5, 2, True)


@pytest.mark.parametrize("bad", ["f2", "i2", "?", "c8", ">f4"])
def test_tensor_refuses_other_dtypes(bad):
    with pytest.raises(TypeError, match="must be float32, float64, bfloat16, int32"):
        fastdl.Tensor(np.zeros(2, bad))


def test_tensor_refuses_lists():
    with pytest.raises(TypeError, match=r"must be an ndarray, got list; use fastdl\.tensor"):
        fastdl.Tensor([1.0])


def test_tensor_function_copies_and_chooses_dtypes():
    a = np.ones(2)
    t = fastdl.tensor(a)
    a[0] = 5
    assert t.numpy()[0] == 1
    assert fastdl.tensor([1.0, 2.0]).dtype == np.float32
    assert fastdl.tensor([1, 2]).dtype == np.int64
    assert fastdl.tensor(a).dtype == np.float64
    assert fastdl.tensor(a, dtype=np.float32).dtype == np.float32
    assert fastdl.tensor(t).numpy() is not t.numpy()


def test_integers_cannot_require_gradients():
    with pytest.raises(TypeError, match="must be float32, float64 or bfloat16, got int64"):
        fastdl.Tensor(np.arange(3), requires_grad=True)
    t = fastdl.Tensor(np.arange(3))
    with pytest.raises(TypeError, match="must be float32, float64 or bfloat16"):
        t.requires_grad = True
    assert not t.requires_grad


def test_only_leaves_can_change_requires_grad():
    y = ops.relu(fastdl.Tensor(np.ones(2), requires_grad=True))
    with pytest.raises(RuntimeError, match="must be a leaf"):
        y.requires_grad = False


def test_comparisons_are_elementwise_and_tensors_hashable():
    t = fastdl.Tensor(np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(t == 2, [False, True, False])
    np.testing.assert_array_equal(t != 2, [True, False, True])
    np.testing.assert_array_equal(t < t, [False] * 3)
    np.testing.assert_array_equal(t >= np.array([3.0, 2, 1]), [False, True, True])
    np.testing.assert_array_equal(t > 1, [False, True, True])
    np.testing.assert_array_equal(t <= 1, [True, False, False])
    assert len({t, t}) == 1
    assert len(t) == 3


def test_repr_shows_values_dtype_and_gradient():
    t = fastdl.Tensor(np.array([1.5, 2.0], np.float32), requires_grad=True)
    assert repr(t) == "Tensor([1.5, 2. ], dtype=float32, requires_grad=True)"


def test_grad_setter_copies_checks_and_clears():
    t = fastdl.Tensor(np.zeros(3), requires_grad=True)
    g = np.arange(3.0)
    t.grad = g
    g[0] = 7
    np.testing.assert_array_equal(t.grad.numpy(), [0, 1, 2])
    with pytest.raises(ValueError, match=r"gradient must be float64\(3\), got float64\(2\)"):
        t.grad = np.zeros(2)
    with pytest.raises(TypeError, match=r"got float32\(3\)"):
        t.grad = np.zeros(3, np.float32)
    with pytest.raises(TypeError, match="got list"):
        t.grad = [0.0, 1, 2]
    np.testing.assert_array_equal(t.grad.numpy(), [0, 1, 2])
    t.grad = None
    assert t.grad is None


def test_gradient_can_be_changed_in_place():
    t = fastdl.Tensor(np.ones(3), requires_grad=True)
    ops.relu(t).backward(np.ones(3))
    t.grad.numpy()[:] *= 0.5
    np.testing.assert_array_equal(t.grad.numpy(), [0.5] * 3)


def test_detach_shares_memory_and_leaves_the_tape():
    x = fastdl.Tensor(np.ones(2), requires_grad=True)
    y = ops.relu(x)
    d = y.detach()
    assert y.requires_grad
    assert not d.requires_grad
    assert np.shares_memory(d.numpy(), y.numpy())


@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_of_a_model_learn_on_their_own(how):
    model = nn.Sequential(nn.Affine(3, 2), nn.ReLU())
    opt = optim.SGD(model.parameters(), lr=1.0)
    twin = how(model)
    before = twin.state_dict()
    ops.mse_loss(model(fastdl.tensor(np.ones((4, 3), "f4"))), np.ones((4, 2), "f4")).backward()
    opt.step()
    for name, value in twin.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    optim.SGD(twin.parameters(), lr=1.0)
    assert [type(p) for p in twin.parameters()] == [nn.Parameter] * 2


def test_an_optimizer_refuses_to_be_copied():
    opt = optim.SGD([fastdl.Tensor(np.ones(2), requires_grad=True)])
    with pytest.raises(TypeError, match="must not be copied"):
        copy.deepcopy(opt)
