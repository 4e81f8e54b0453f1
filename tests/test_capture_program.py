"""What becomes of a recording: memory, dead results, undo, checks, several threads."""

import threading

import fastdl
import numpy as np
import pytest
from capture_steps import data, make
from fastdl import _core, nn, ops, optim


def test_temporaries_share_memory():
    model = nn.MLP(*[64] * 12, 2).eval()
    forward = fastdl.capture(lambda X: model(X))
    X = np.ones((128, 64), np.float32)
    wanted = model(X)
    np.testing.assert_array_equal(forward(X).numpy(), wanted)
    (memory,) = forward.memory()
    hidden = 128 * 64 * 4
    assert memory["without_reuse"] == 11 * hidden
    assert memory["temporaries"] == 2 * hidden
    assert memory["inputs"] == hidden
    assert memory["results"] == 128 * 2 * 4
    assert memory["fixed"] == sum(p.size for p in model.parameters()) * 4
    np.testing.assert_array_equal(forward(X).numpy(), wanted)


def test_memory_is_let_go_after_recording():
    sums = fastdl.capture(lambda X: ops.sum(ops.relu(X), 0))
    X = np.ones((1000, 1000))
    sums(X)
    program = sums.programs()[0]
    assert program.memory()["temporaries"] == X.nbytes
    assert program.memory()["fixed"] == 0


def test_a_tensor_that_somebody_keeps_stays_where_it_is_and_follows_replays():
    kept = []

    @fastdl.capture
    def f(X):
        H = ops.relu(X)
        kept.append(H)
        return ops.relu(H)

    f(np.ones(5))
    f(np.full(5, 3.0))
    np.testing.assert_array_equal(kept[0].numpy(), np.full(5, 3.0))


def test_results_nobody_reads_are_not_computed():
    layer = nn.Affine(4, 3)

    @fastdl.capture
    def f(X):
        ops.relu(layer(X))
        return ops.relu(X)

    X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    for _ in range(2):
        np.testing.assert_array_equal(f(X).numpy(), np.maximum(X, 0))
    assert [c["name"] for c in f.programs()[0].calls()] == ["relu_forward"]


def test_optional_outputs_nobody_reads_are_left_out():
    W = fastdl.Tensor(np.ones((4, 3)), requires_grad=True)

    @fastdl.capture
    def f(X, y):
        X.requires_grad_()
        W.grad = None
        ops.cross_entropy(ops.affine(X, W), y).backward()
        return W.grad

    X, y = np.eye(4), np.array([0, 1, 2, 0])
    first = f(X, y)
    for _ in range(2):
        np.testing.assert_array_equal(f(X, y).numpy(), first.numpy())
    call = f.programs()[0].calls()[-1]
    assert call["name"] == "affine_backward"
    assert "dW" in call["args"] and "dX" not in call["args"]


def test_indices_that_the_program_computes_are_checked_when_they_are_there():
    X = np.random.default_rng(0).normal(size=(3, 4))
    strided = np.array([[1, 9], [0, 9], [3, 9]])

    @fastdl.capture
    def f(X):
        index = fastdl.Tensor(strided[:, 0])  # copied by a kernel
        return ops.gather(X, 1, index)

    for _ in range(3):
        np.testing.assert_array_equal(f(X).numpy(), X[np.arange(3), strided[:, 0]])
    strided[2, 0] = 4
    with pytest.raises(ValueError, match=r"gather.* got 4"):
        f(X)
    strided[2, 0] = 2
    np.testing.assert_array_equal(f(X).numpy(), X[np.arange(3), [1, 0, 2]])


def test_a_result_twice_or_in_parts():
    f = fastdl.capture(lambda X: [(Y := ops.relu(X)), Y, ops.reshape(Y, (2, 2)), X, X])
    for seed in range(3):
        X = np.random.default_rng(seed).normal(size=4)
        a, b, c, d, e = (t.numpy() for t in f(X))
        for got in (a, b, c.reshape(4)):
            np.testing.assert_array_equal(got, np.maximum(X, 0))
        np.testing.assert_array_equal(d, X)
        np.testing.assert_array_equal(e, X)
        a[0] = 99
        assert b[0] != 99


def test_an_input_that_no_kernel_reads_is_handed_through():
    f = fastdl.capture(lambda X, Z: (ops.relu(X), Z))
    for i in range(3):
        X, Z = np.full(3, i + 1.0), np.full(2, i - 5.0)
        np.testing.assert_array_equal(f(X, Z)[1].numpy(), Z)


# ---- errors in a recording --------------------------------------------------------------------


def everything(model, opt):
    grads = [p._grad for p in model.parameters()]
    hyper = [g.hyper for g in opt.param_groups]
    moments = [a for r in opt._runs for a in (r.steps, *r.state.values())]
    random = [fastdl.random.default_generator.state]
    return [*model.state_dict().values(), *hyper, *moments, *random], grads


@pytest.mark.parametrize("how", ["raise", "read", "frozen"])
@pytest.mark.parametrize("trained", [False, True])
def test_an_error_midway_leaves_everything_as_it_was(how, trained):
    model, opt, step = make(kind=optim.SGD, momentum=0.9)
    X, y = data()
    if trained:
        for i in range(3):
            step(fastdl.Tensor(data(seed=i)[0]), fastdl.Tensor(y))
    arrays, grads = everything(model, opt)
    copies = [a.copy() for a in arrays]
    values = [None if g is None else g.copy() for g in grads]

    @fastdl.capture
    def wrong(X, y):
        model.eval()
        model.train()
        loss = step(X, y)
        if how == "raise":
            raise ZeroDivisionError
        if how == "read":
            loss.item()
        return ops.relu(fastdl.Tensor(np.ones(3))) if how == "frozen" else loss

    error = ZeroDivisionError if how == "raise" else fastdl.CaptureError
    for _ in range(2):
        with pytest.raises(error):
            wrong(X, y)
        after, now = everything(model, opt)
        for a, b in zip(after, copies, strict=True):
            np.testing.assert_array_equal(a, b)
        for g, old, value in zip(now, grads, values, strict=True):
            assert g is old
            assert g is None or (g == value).all()
    assert wrong.programs() == []
    assert not _core.recording()


def test_an_error_midway_restores_arrays_given_as_out_and_gradients_of_plain_leaves():
    W = fastdl.Tensor(np.ones((4, 2), "f"), requires_grad=True)
    out = np.full((16, 2), 7, "f")
    X, y = data()
    ops.cross_entropy(ops.affine(X, W), y).backward()
    grad, values = W._grad, W._grad.copy()

    @fastdl.capture
    def wrong(X, y):
        ops.cross_entropy(ops.affine(X, W), y).backward()  # adds
        with fastdl.no_grad():
            ops.affine(X, W, out=out)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        wrong(X, y)
    assert (out == 7).all()
    assert W._grad is grad
    np.testing.assert_array_equal(grad, values)


def test_weights_made_inside_and_used_twice():
    @fastdl.capture
    def f(X, W):
        W.requires_grad_()
        H = ops.affine(ops.affine(X, W), W)
        ops.mse_loss(H, X).backward()
        return W.grad

    X, W = (np.random.default_rng(i).normal(size=(4, 4)) for i in range(2))
    w = fastdl.Tensor(W, requires_grad=True)
    ops.mse_loss(ops.affine(ops.affine(X, w), w), fastdl.Tensor(X)).backward()
    for _ in range(3):
        np.testing.assert_array_equal(f(X, W).numpy(), w.grad.numpy())


def test_numpy_inside_is_refused_with_its_line():
    noise = np.ones(4)
    f = fastdl.capture(lambda X: ops.relu(fastdl.Tensor(noise * 2)))
    with pytest.raises(fastdl.CaptureError, match=rf"{__file__}:\d+ .*float64\(4\).*NumPy made"):
        f(noise)
    g = fastdl.capture(lambda X: ops.mse_loss(X, fastdl.Tensor(noise)))
    noise[:] = 2
    assert g(noise).item() == 0
    noise[:] = 3
    assert g(np.full(4, 5.0)).item() == 4  # read where it lies
    h = fastdl.capture(lambda X: ops.mse_loss(X, fastdl.tensor([1.0, 2.0])))
    assert [h(np.array([1, 4], "f")).item() for _ in range(2)] == [2, 2]


# ---- check=True -------------------------------------------------------------------------------


def test_check_compares_the_first_replays():
    model, _, step = make()
    calls = []

    @fastdl.capture(check=True)
    def counted(X, y):
        calls.append(1)
        return step(X, y)

    twin, _, plain = make()
    plain = fastdl.capture(plain)
    for i in range(6):
        fastdl.manual_seed(i)
        a = counted(*data(seed=i)).item()
        fastdl.manual_seed(i)
        assert a == plain(*data(seed=i)).item()
    assert len(calls) == 4  # one recording, three checks
    for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_check_finds_what_depends_on_the_clock():
    model, opt, _ = make(kind=optim.SGD)
    times = iter(range(10))
    scale = [np.array([1.0], "f"), np.array([2.0], "f")]

    def result(X):
        return ops.relu(fastdl.Tensor(scale[next(times) % 2]))

    f = fastdl.capture(result, check=True)
    f(np.ones(1))
    with pytest.raises(fastdl.CaptureError, match="check: result 0 differs"):
        f(np.ones(1))

    def update(X, y):
        opt.zero_grad()
        logits = model(X)
        loss = nn.CrossEntropyLoss(label_smoothing=0.1 * (next(times) % 3))(logits, y)
        loss.backward()
        opt.step()

    model.eval()
    g = fastdl.capture(update, check=True)
    X, y = data()
    g(X, y)
    with pytest.raises(fastdl.CaptureError, match=r"check: .*_grad of Parameter differs"):
        g(X, y)


# ---- several threads --------------------------------------------------------------------------


def test_inference_runs_in_several_threads_at_once():
    model = nn.MLP(8, 32, 3).eval()
    forward = fastdl.capture(lambda X: model(X))
    inputs = [np.random.default_rng(i).normal(size=(64, 8)).astype("f") for i in range(4)]
    wanted = [model(X) for X in inputs]
    wrong = []

    def work(i):
        outputs = [forward(inputs[i]).numpy() for _ in range(300)]
        wrong.extend(i for Y in outputs if (wanted[i] != Y).any())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert len(forward.programs()) == 1


def test_a_second_thread_waits_for_the_recording():
    _, opt, step = make()
    inside, go = threading.Event(), threading.Event()

    def slow(X, y):
        inside.set()
        go.wait(5)
        return step(X, y)

    captured = fastdl.capture(slow)
    X, y = data()
    threads = [threading.Thread(target=captured, args=(X, y)) for _ in range(2)]
    threads[0].start()
    inside.wait(5)
    threads[1].start()
    go.set()
    for t in threads:
        t.join()
    assert len(captured.programs()) == 1
    assert opt.state_dict()["state"][0]["step"] == 2


def test_max_shapes():
    f = fastdl.capture(lambda X: ops.relu(X), max_shapes=3)
    for n in range(8):
        f(np.zeros(n))
        f(np.zeros(n))
    assert len(f.programs()) == 3
    with pytest.raises(ValueError, match="max_shapes must be at least 1"):
        fastdl.capture(lambda X: X, max_shapes=0)


def test_the_listing_has_time_and_place():
    f = fastdl.capture(lambda X: ops.sum(ops.relu(X)))
    X = np.ones(100_000)
    for _ in range(40):
        f(X)
    text = str(f)
    assert "relu_forward" in text and "test_capture_program.py:" in text
    assert all(c["timed"] >= 1 and c["seconds"] > 0 for c in f.programs()[0].calls())
    assert "GB/s" in text.splitlines()[2]
