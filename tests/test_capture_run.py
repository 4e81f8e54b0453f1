"""CapturedStep.run: the Python loop over batches, bit for bit, in few native calls."""

import os
import signal
import threading
import time

import fastdl
import numpy as np
import pytest
from capture_steps import data, make, run_eager
from fastdl import nn, ops, optim


def loop(step, X, y, size, epochs, rng=None, drop_last=False):
    """What `run` promises to be."""
    losses = []
    for _ in range(epochs):
        order = np.arange(len(X)) if rng is None else rng.permutation(len(X))
        for i in range(0, len(X), size):
            rows = order[i : i + size]
            if len(rows) == size or not drop_last:
                losses.append(run_eager(step, X[rows], y[rows]).item())
    return losses


def state(model, opt):
    arrays = list(model.state_dict().values())
    return arrays + [a for s in opt.state_dict()["state"].values() for a in s.values()]


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    ("rows", "drop_last"),
    [(64, False), (64, True), (53, False), (53, True), (16, True), (7, False)],
)
def test_run_is_the_python_loop(shuffle, rows, drop_last):
    X, y = data(rows)
    model, opt, step = make()
    rng = np.random.default_rng(5) if shuffle else None
    wanted = loop(step, X, y, 16, 3, rng, drop_last)
    other, opt2, step2 = make()
    captured = fastdl.capture(step2)
    options = {"batch_size": 16, "shuffle": shuffle, "drop_last": drop_last}
    if shuffle:
        options["rng"] = np.random.default_rng(5)
    got = [captured.run(X, y, epochs=n, **options) for n in (1, 2)]
    assert np.concatenate(got).tolist() == wanted
    assert_same(state(model, opt), state(other, opt2))
    assert all(p.grad is not None for p in other.parameters())


def test_generators_of_fastdl_draw_the_orders():
    X, y = data(40)
    results = []
    for _ in range(2):
        step = fastdl.capture(make()[2])
        fastdl.manual_seed(4)
        results.append(step.run(X, y, batch_size=8, epochs=2))
        rng = fastdl.Generator(9)
        results[-1] = np.append(results[-1], step.run(X, y, batch_size=8, rng=rng))
    assert_same(*results)
    assert len(set(results[0].tolist())) > 5


def test_steps_end_within_an_epoch_and_schedules_are_per_step():
    X, y = data(40)
    model, opt, step = make(kind=optim.SGD)
    rates = np.linspace(0.1, 0.0, 13)
    wanted = []
    for i in range(13):
        opt.param_groups[0]["lr"] = rates[i]
        rows = slice(i % 5 * 8, i % 5 * 8 + 8)
        wanted.append(run_eager(step, X[rows], y[rows]).item())
    other, opt2, step2 = make(kind=optim.SGD)
    captured = fastdl.capture(step2)
    got = captured.run(
        X, y, batch_size=8, steps=13, shuffle=False, schedules=[(opt2.param_groups[0], rates)]
    )
    assert got.tolist() == wanted
    assert_same(state(model, opt), state(other, opt2))
    assert opt2.param_groups[0]["lr"] == 0.0


def test_images_are_widened_and_scaled():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 3, 2), np.uint8)
    f = fastdl.capture(lambda X: ops.relu(X))
    got = f.run(images, batch_size=10, shuffle=False, scale=1 / 255)
    want = images.astype(np.float32) * np.float32(1 / 255)
    np.testing.assert_array_equal(got.reshape(30, 3, 2), want)
    assert got.dtype == np.float32
    f.run(images, batch_size=10, scale=0.0)
    assert not f.run(images, batch_size=10, scale=0.0).any()


def test_results_keep_the_form_of_the_function():
    f = fastdl.capture(lambda X: {"relu": ops.relu(X), "pair": (X, 3)})
    X = np.arange(-4.0, 4.0)
    got = f.run(X, batch_size=4, shuffle=False)
    np.testing.assert_array_equal(got["relu"], np.maximum(X, 0).reshape(2, 4))
    np.testing.assert_array_equal(got["pair"][0], X.reshape(2, 4))
    assert got["pair"][1] == 3
    ragged = f.run(X, batch_size=3, shuffle=False)["relu"]
    assert [len(r) for r in ragged] == [3, 3, 2]


def test_callbacks_see_every_step_once_and_may_stop():
    X, y = data(40)
    seen = []
    step = fastdl.capture(make()[2])
    losses = step.run(
        X, y, batch_size=8, epochs=3, every=4, callback=lambda n, r: seen.append((n, r))
    )
    assert [n for n, _ in seen] == [4, 8, 12, 15]
    np.testing.assert_array_equal(np.concatenate([r for _, r in seen]), losses)
    assert len(step.run(X, y, batch_size=8, epochs=3, callback=lambda n, r: n < 10)) == 10
    assert step.run(X, y, batch_size=8, epochs=0) is None


def test_accumulating_steps_are_recorded_as_they_need():
    """Without zero_grad the first step stores and the next ones add: two programs."""
    X, y = data(24)

    def gradients(wrap):
        fastdl.manual_seed(1)
        model = nn.MLP(4, 8, 2)

        def step(X, y):
            loss = nn.CrossEntropyLoss()(model(X), y)
            loss.backward()
            return loss

        return wrap(model, step)

    eager = gradients(lambda m, s: (loop(s, X, y, 8, 2), [p.grad.numpy() for p in m.parameters()]))
    ran = gradients(
        lambda m, s: (
            fastdl.capture(s).run(X, y, batch_size=8, epochs=2, shuffle=False).tolist(),
            [p.grad.numpy() for p in m.parameters()],
        )
    )
    assert eager[0] == ran[0]
    assert_same(eager[1], ran[1])


def interrupt_soon(after):
    threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT)).start()
    return time.perf_counter() + after


def test_ctrl_c_leaves_a_whole_step_and_the_run_goes_on_from_there():
    X, y = data(4096)

    def whole():
        model, opt, step = make()
        rng = np.random.default_rng(2)
        losses = fastdl.capture(step).run(X, y, batch_size=8, epochs=12, rng=rng)
        return losses, state(model, opt)

    wanted, end = whole()
    model, opt, step = make()
    captured = fastdl.capture(step)
    options = {"batch_size": 8, "epochs": 12, "rng": np.random.default_rng(2)}
    due = interrupt_soon(0.02)
    with pytest.raises(fastdl.Interrupted) as caught:
        captured.run(X, y, **options)
    assert time.perf_counter() - due < 0.1
    error = caught.value
    assert isinstance(error, KeyboardInterrupt)
    n = len(error.results)
    assert 0 < n == error.resume.done < len(wanted)
    rest = captured.run(X, y, **options, resume=error.resume)
    np.testing.assert_array_equal(np.concatenate([error.results, rest]), wanted)
    assert_same(state(model, opt), end)


def test_a_bad_label_ends_the_run_before_its_step():
    X, y = data(40)
    model, opt, step = make()
    captured = fastdl.capture(step)
    captured.run(X, y, batch_size=8)
    y[29] = 7
    twin = [a.copy() for a in state(model, opt)]
    with pytest.raises(ValueError, match=r"cross_entropy_forward: t must be .* got 7 at row 5"):
        captured.run(X, y, batch_size=8, shuffle=False)
    steps = opt.state_dict()["state"][0]["step"]
    assert steps == 8  # five, then the three before the bad batch
    assert any((a != b).any() for a, b in zip(state(model, opt), twin, strict=True))
    captured.run(X, np.zeros_like(y), batch_size=8)


X40, Y40 = data(40)


@pytest.mark.parametrize(
    ("arrays", "options", "error", "text"),
    [
        ((), {}, ValueError, "arrays must be at least one"),
        ((X40, Y40[:-1]), {}, ValueError, r"equally many rows, got \[40, 39\]"),
        ((X40, 3), {}, TypeError, "array 1 must be an ndarray of rows, got int"),
        ((X40, np.array(3)), {}, TypeError, "array 1 must be an ndarray of rows, got int64"),
        ((X40, Y40), {"batch_size": 0}, ValueError, "batch_size must be an integer of at least 1"),
        ((X40, Y40), {"batch_size": 2.0}, ValueError, "batch_size must be an integer"),
        ((X40[:0], Y40[:0]), {}, ValueError, "at least 1 rows, got 0"),
        ((X40[:5], Y40[:5]), {"drop_last": True}, ValueError, "at least 8 rows, got 5"),
        ((X40, Y40), {"epochs": 1, "steps": 2}, ValueError, "either epochs or steps"),
        ((X40, Y40), {"epochs": -1}, ValueError, "epochs must not be negative"),
        ((X40, Y40), {"steps": 1.5}, TypeError, "steps must be an integer"),
        ((X40, Y40), {"every": 0}, ValueError, "every must not be negative"),
        ((X40, Y40), {"schedules": [(3, [])]}, TypeError, "schedules must be pairs"),
        ((X40, Y40), {"scale": "1"}, ValueError, "scale must be a finite number"),
        ((X40, Y40), {"scale": np.nan}, ValueError, "scale must be a finite number"),
        ((X40, Y40), {"resume": 3}, TypeError, "resume must be a RunState"),
    ],
)
def test_bad_arguments(arrays, options, error, text):
    _, _, step = make()
    captured = fastdl.capture(step)
    with pytest.raises(error, match=text):
        captured.run(*arrays, **{"batch_size": 8} | options)
    assert captured.programs() == []


@pytest.mark.parametrize("rates", [np.ones(3), -np.ones(5), np.full(5, np.nan)])
def test_bad_schedules(rates):
    _, opt, step = make()
    with pytest.raises(ValueError, match="learning rate"):
        fastdl.capture(step).run(X40, Y40, batch_size=8, schedules=[(opt.param_groups[0], rates)])
