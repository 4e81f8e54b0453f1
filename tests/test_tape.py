"""The tape: accumulation, order, freeing, errors before changes, depth, threads."""

import threading

import fastdl
import numpy as np
import pytest
from fastdl import nn, ops, tape


def leaf(*shape, seed=0, dtype=np.float64):
    return fastdl.Tensor(
        np.random.default_rng(seed).normal(size=shape).astype(dtype), requires_grad=True
    )


def test_chain_is_the_product_of_derivatives():
    X, W, b = leaf(5, 3), leaf(3, 4, seed=1), leaf(4, seed=2)
    Y = ops.affine(X, W, b, "relu")
    dY = np.random.default_rng(3).normal(size=(5, 4))
    Y.backward(dY)
    dZ = dY * (X.numpy() @ W.numpy() + b.numpy() > 0)
    np.testing.assert_allclose(X.grad.numpy(), dZ @ W.numpy().T, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(W.grad.numpy(), X.numpy().T @ dZ, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(b.grad.numpy(), dZ.sum(0), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("shape", [(3,), (2, 5, 3), (0, 3), (2, 0, 3)])
def test_affine_takes_any_rank(shape):
    X, W, b = leaf(*shape), leaf(3, 4, seed=1), leaf(4, seed=2)
    Y = ops.affine(X, W, b)
    np.testing.assert_allclose(Y.numpy(), X.numpy() @ W.numpy() + b.numpy(), rtol=1e-13)
    dY = np.random.default_rng(3).normal(size=Y.shape)
    Y.backward(dY)
    np.testing.assert_allclose(X.grad.numpy(), dY @ W.numpy().T, rtol=1e-13, atol=1e-14)
    dW = X.numpy().reshape(X.size // 3, 3).T @ dY.reshape(X.size // 3, 4)
    np.testing.assert_allclose(W.grad.numpy(), dW, rtol=1e-13, atol=1e-14)


def test_second_use_of_a_tensor_accumulates():
    # y = relu(x) is used twice, x itself three times.
    x = fastdl.Tensor(np.array([[1.0, -2.0, 3.0]]), requires_grad=True)
    y = ops.relu(x)
    total = ops.mse_loss(ops.mse_loss(y, x, reduction="none"), y, reduction="sum")
    total.backward()

    def f(v):
        r = np.maximum(v, 0)
        return (((r - v) ** 2 - r) ** 2).sum()

    eps = 1e-6
    for i in range(3):
        step = np.eye(3)[i] * eps
        numeric = (f(x.numpy()[0] + step) - f(x.numpy()[0] - step)) / (2 * eps)
        assert x.grad.numpy()[0, i] == pytest.approx(numeric, rel=1e-6)


def test_one_tensor_as_both_factors():
    t = leaf(3, 3)
    for n in (1, 2):  # fresh gradient, then one that is added to
        ops.affine(t, t).backward(np.ones((3, 3)))
        one = np.ones((3, 3)) @ t.numpy().T + t.numpy().T @ np.ones((3, 3))
        np.testing.assert_allclose(t.grad.numpy(), n * one, rtol=1e-13, atol=1e-14)


def test_one_tensor_as_weight_and_bias_of_batch_norm():
    g, X = leaf(3), leaf(6, 3, seed=1)
    for n in (1, 2):
        ops.batch_norm(X, None, None, g, g, training=True).backward(np.ones((6, 3)))
        xhat = (X.numpy() - X.numpy().mean(0)) / np.sqrt(X.numpy().var(0) + 1e-5)
        np.testing.assert_allclose(g.grad.numpy(), n * (xhat.sum(0) + 6), rtol=1e-12)


def test_gradients_add_up_until_zeroed():
    W, b, X = leaf(3, 2), leaf(2, seed=1), np.random.default_rng(5).normal(size=(4, 3))
    dY = np.ones((4, 2))
    ops.affine(X, W, b).backward(dY)
    once = W.grad.numpy().copy(), b.grad.numpy().copy()
    ops.affine(X, W, b).backward(dY)
    np.testing.assert_allclose(W.grad.numpy(), 2 * once[0], rtol=1e-15)
    b.grad = None  # one fresh, one not
    ops.affine(X, W, b).backward(dY)
    np.testing.assert_allclose(W.grad.numpy(), 3 * once[0], rtol=1e-15)
    np.testing.assert_array_equal(b.grad.numpy(), once[1])


def test_a_kept_gradient_is_not_overwritten_after_zeroing():
    W, X = leaf(3, 2), np.ones((4, 3))
    ops.affine(X, W).backward(np.ones((4, 2)))
    kept = W.grad.numpy()
    W.grad = None
    ops.affine(X, W).backward(np.full((4, 2), 7.0))
    assert kept[0, 0] == 4
    assert W.grad.numpy()[0, 0] == 28


def test_user_gradient_is_never_changed():
    x = leaf(6)
    r = ops.reshape(x, (2, 3))
    y = ops.relu(ops.reshape(r, 6))
    dY = np.ones(6)
    y.backward(dY)
    np.testing.assert_array_equal(dY, 1)
    # the gradient of a view is a view of dY: accumulation must not write into it
    v = ops.reshape(x, (3, 2))
    v.backward(dY.reshape(3, 2))
    v2 = ops.reshape(x, (3, 2))
    v2.backward(dY.reshape(3, 2))
    np.testing.assert_array_equal(dY, 1)
    np.testing.assert_array_equal(x.grad.numpy(), (x.numpy() > 0) + 2.0)


def test_gradient_of_a_leaf_itself():
    x = leaf(3)
    x.backward(np.arange(3.0))
    x.backward(np.arange(3.0))
    np.testing.assert_array_equal(x.grad.numpy(), 2 * np.arange(3.0))


def test_second_backward_needs_retain_graph():
    X = leaf(4, 3)
    t = np.array([0, 1, 2, 0])
    loss = ops.cross_entropy(X, t)
    loss.backward(retain_graph=True)
    once = X.grad.numpy().copy()
    loss.backward()
    np.testing.assert_array_equal(X.grad.numpy(), 2 * once)
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        loss.backward()
    np.testing.assert_array_equal(X.grad.numpy(), 2 * once)


def test_a_second_pass_finds_what_the_first_one_saved():
    # h gets the gradient that mse_loss saved, then that of the affine layer is added to it.
    x, W = leaf(5, 3), leaf(3, 3, seed=1)
    h = ops.relu(x)
    loss = ops.mse_loss(h, ops.affine(h, W))
    loss.backward(retain_graph=True)
    once = x.grad.numpy().copy()
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * once)


def test_a_shared_freed_part_is_found_before_anything_changes():
    X, W = leaf(4, 3), leaf(3, 3, seed=1)
    h = ops.relu(X)
    a, b = ops.affine(h, W), ops.affine(h, W)
    a.backward(np.ones((4, 3)))
    W.grad = X.grad = None
    with pytest.raises(RuntimeError, match="freed"):
        b.backward(np.ones((4, 3)))
    assert W.grad is None
    assert X.grad is None


def test_backward_checks_its_gradient():
    y = ops.relu(leaf(3))
    with pytest.raises(ValueError, match="grad must be given"):
        y.backward()
    with pytest.raises(ValueError, match=r"gradient must be float64\(3\), got float64\(4\)"):
        y.backward(np.ones(4))
    with pytest.raises(TypeError, match="got float32"):
        y.backward(np.ones(3, np.float32))
    with pytest.raises(RuntimeError, match="requires_grad=True"):
        ops.relu(fastdl.Tensor(np.ones(3))).backward(np.ones(3))
    y.backward(fastdl.Tensor(np.ones(3)))


def test_a_failing_pass_leaves_no_half_written_gradient(monkeypatch):
    X, W = leaf(4, 3), leaf(3, 2, seed=1)
    y = ops.affine(ops.relu(ops.relu(X)), W)

    def broken(*_):
        raise MemoryError

    monkeypatch.setattr("fastdl._core.relu_backward", broken)
    with pytest.raises(MemoryError):
        y.backward(np.ones((4, 2)))
    assert W.grad is None
    assert X.grad is None


def test_no_grad_is_per_thread_nests_and_decorates():
    x = leaf(2)
    seen = []
    with fastdl.no_grad():
        with fastdl.no_grad():
            pass
        assert not fastdl.is_grad_enabled()
        assert not ops.relu(x).requires_grad
        worker = threading.Thread(target=lambda: seen.append(fastdl.is_grad_enabled()))
        worker.start()
        worker.join()
    assert seen == [True]
    assert fastdl.is_grad_enabled()
    assert not fastdl.no_grad()(ops.relu)(x).requires_grad
    with pytest.raises(ZeroDivisionError), fastdl.no_grad():
        raise ZeroDivisionError
    assert fastdl.is_grad_enabled()


@pytest.mark.parametrize("go_back", [True, False], ids=["backward", "dropped"])
def test_a_very_deep_graph_needs_no_recursion(go_back):
    x = leaf(1)
    y = x
    for _ in range(50_000):
        y = ops.relu(y)
    if go_back:
        y.backward(np.ones(1))
        assert x.grad.numpy()[0] == (x.numpy()[0] > 0)
    del y


def test_backward_frees_the_graph():
    x = leaf(3)
    y = ops.relu(x)
    node = y._node
    y.backward(np.ones(3))
    assert node.inputs == ()
    assert node.saved == ()


def test_threads_have_independent_passes():
    xs = [leaf(8, 8, seed=i) for i in range(4)]

    def work(x):
        for _ in range(50):
            x.grad = None
            y = x
            for _ in range(5):
                y = ops.relu(ops.affine(y, x))
            y.backward(np.ones((8, 8)))

    expected = []
    for x in xs:
        work(x)
        expected.append(x.grad.numpy().copy())
    threads = [threading.Thread(target=work, args=(x,)) for x in xs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for x, e in zip(xs, expected, strict=True):
        np.testing.assert_array_equal(x.grad.numpy(), e)


def test_array_call_and_tensor_call_give_the_same_bits():
    rng = np.random.default_rng(0)
    X, W, b = (rng.normal(size=s).astype("f4") for s in ((7, 5), (5, 3), (3,)))
    a = ops.affine(X, W, b, "relu")
    assert isinstance(a, np.ndarray)
    for args in ((fastdl.Tensor(X), W, b), (X, fastdl.Tensor(W), b), (X, W, fastdl.Tensor(b))):
        t = ops.affine(*args, "relu")
        assert isinstance(t, fastdl.Tensor)
        np.testing.assert_array_equal(t.numpy(), a)


def test_out_is_refused_where_a_gradient_is_recorded():
    x, out = leaf(3), np.zeros(3)
    with pytest.raises(RuntimeError, match="out must be None where a gradient is recorded"):
        ops.relu(x, out=out)
    np.testing.assert_array_equal(out, 0)
    with fastdl.no_grad():
        assert ops.relu(x, out=out) is out
    np.testing.assert_array_equal(out, np.maximum(x.numpy(), 0))


@pytest.mark.parametrize(
    ("out", "error", "text"),
    [
        (np.zeros(4), ValueError, r"out must be float64\(3\), got float64\(4\)"),
        (np.zeros(3, "f4"), TypeError, "got float32"),
        (np.zeros(6)[::2], ValueError, "C-contiguous and writeable"),
        (np.frombuffer(bytes(24)), ValueError, "C-contiguous and writeable"),
        ([0.0] * 3, TypeError, "got list"),
    ],
    ids=["shape", "dtype", "strided", "read-only", "list"],
)
def test_out_must_fit(out, error, text):
    with pytest.raises(error, match=text):
        ops.relu(np.ones(3), out=out)


def test_ops_refuse_what_is_no_array():
    with pytest.raises(TypeError, match="relu: X must be an ndarray or a Tensor, got list"):
        ops.relu([1.0])
    with pytest.raises(ValueError, match=r"affine: W must be \(n, m\)"):
        ops.affine(np.ones((2, 3)), np.ones(3))
    with pytest.raises(ValueError, match="got 0-d"):
        ops.affine(np.ones(()), np.ones((3, 2)))
    with pytest.raises(ValueError, match="target must be labels of shape"):
        ops.cross_entropy(np.ones((2, 3)), np.array([0, 1, 2]))
    with pytest.raises(ValueError, match="reshape: shape must hold the 6 elements"):
        ops.reshape(np.ones((2, 3)), (4,))
    with pytest.raises(ValueError, match="p must be 0 <= p <= 1"):
        ops.dropout(np.ones(3), 1.5)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ops.batch_norm(np.ones((1, 3)), None, None, training=True)


def test_sequence_numbers_are_in_execution_order():
    a = ops.relu(leaf(2))
    b = ops.relu(a)
    assert list(tape._reachable(b._node).items()) == [(b._node, 0), (a._node, 1)]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 3, 4), (2, 3, 2, 2)])
def test_losses_of_any_rank_have_the_right_gradient(reduction, shape):
    rng = np.random.default_rng(1)
    X = leaf(*shape)
    t = rng.integers(0, 3, shape[:1] + shape[2:] if len(shape) > 1 else ())
    P = rng.dirichlet(np.ones(3), t.shape)
    P = np.ascontiguousarray(np.moveaxis(P, -1, 1) if len(shape) > 1 else P)
    w = np.array([0.5, 1.0, 2.0])
    fastdl.testing.gradcheck(
        lambda X: ops.cross_entropy(X, t, w, reduction=reduction, label_smoothing=0.1), X
    )
    fastdl.testing.gradcheck(lambda X: ops.cross_entropy(X, P, reduction=reduction), X)
    T = leaf(*shape, seed=4)
    fastdl.testing.gradcheck(lambda X, T: ops.mse_loss(X, T, reduction=reduction), (X, T))


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 2), (2, 3, 2, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_of_any_rank_has_the_right_gradient(shape, training):
    mean, var = np.zeros(3), np.ones(3)

    def fn(X, w, b):
        return ops.batch_norm(X, mean.copy(), var.copy(), w, b, training=training)

    fastdl.testing.gradcheck(fn, (leaf(*shape), leaf(3, seed=1), leaf(3, seed=2)))


def test_dropout_has_the_gradient_of_its_mask():
    def fn(X):
        return ops.dropout(X, 0.4, generator=fastdl.Generator(5))

    fastdl.testing.gradcheck(fn, leaf(40))
    generator = fastdl.Generator(5)
    saved = generator.get_state()
    Y = ops.dropout(np.ones(40), 0.4, generator=generator)
    np.testing.assert_array_equal(ops.dropout_backward(np.ones(40), saved, 0.4), Y)


def test_raw_backward_functions_agree_with_the_tape():
    X, W, b = leaf(5, 3), leaf(3, 4, seed=1), leaf(4, seed=2)
    dY = np.random.default_rng(3).normal(size=(5, 4))
    Y = ops.affine(X, W, b, "relu")
    raw = ops.affine_backward(dY, X.numpy(), W.numpy(), Y.numpy(), "relu")
    Y.backward(dY)
    for r, t in zip(raw, (X, W, b), strict=True):
        np.testing.assert_array_equal(r, t.grad.numpy())
    logits, t = leaf(4, 3, 2), np.array([[0, 1], [2, 0], [1, 1], [0, 2]])
    loss = ops.cross_entropy(logits, t, reduction="none")
    d = np.random.default_rng(4).normal(size=loss.shape)
    loss.backward(d)
    raw = ops.cross_entropy_backward(d, logits.numpy(), t, reduction="none")
    np.testing.assert_array_equal(raw, logits.grad.numpy())
    A, B = leaf(3, 2), leaf(3, 2, seed=1)
    ops.mse_loss(A, B).backward()
    np.testing.assert_array_equal(ops.mse_loss_backward(None, A.numpy(), B.numpy()), A.grad.numpy())
    X = leaf(6, 3)
    x = X.numpy()
    d = np.random.default_rng(4).normal(size=(6, 3))
    ops.batch_norm(X, None, None, training=True).backward(d)
    raw = ops.batch_norm_backward(d, x, x.mean(0), 1 / np.sqrt(x.var(0) + 1e-5))
    np.testing.assert_allclose(raw[0], X.grad.numpy(), rtol=1e-12, atol=1e-13)


def test_gradcheck_finds_a_wrong_gradient(monkeypatch):
    real = fastdl._core.relu_backward

    def wrong(dY, Y, dX):
        real(dY, Y, dX)
        dX *= 1.01

    monkeypatch.setattr("fastdl._core.relu_backward", wrong)
    with pytest.raises(AssertionError, match="gradient of input 0"):
        fastdl.testing.gradcheck(ops.relu, fastdl.Tensor(np.ones(3), requires_grad=True))


def test_assert_close_and_assert_deterministic_can_fail():
    fastdl.testing.assert_close(np.array([1.0, np.nan]), np.array([1.0, np.nan]))
    with pytest.raises(AssertionError, match=r"1 of 2 differ, worst at \(1,\)"):
        fastdl.testing.assert_close(np.array([1.0, 2.0]), np.array([1.0, 3.0]))
    with pytest.raises(AssertionError, match="must be float64"):
        fastdl.testing.assert_close(np.ones(2, "f4"), np.ones(2))
    fastdl.testing.assert_deterministic(ops.relu, np.ones(3))
    rng = np.random.default_rng(0)
    with pytest.raises(AssertionError, match="same bits"):
        fastdl.testing.assert_deterministic(lambda: rng.random(3))


def test_frozen_parameters_get_no_gradient():
    layer = nn.Affine(3, 2)
    layer.b.requires_grad = False
    layer(fastdl.tensor(np.ones((2, 3), "f4"))).backward(np.ones((2, 2), "f4"))
    assert layer.b.grad is None
    assert layer.W.grad is not None
