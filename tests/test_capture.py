"""capture: a replay is the eager step bit for bit, and what cannot be repeated is refused."""

import fastdl
import numpy as np
import pytest
from capture_steps import data, make, run_eager
from fastdl import nn, ops, optim


def assert_same_state(a, b):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize(
    ("kind", "options", "kernels"),
    [
        (optim.Adam, {"amsgrad": True}, 16),
        (optim.AdamW, {"clip_norm": 0.5, "ema_decay": 0.9}, 17),
        (optim.SGD, {"momentum": 0.9, "clip_norm": 0.5, "ema_decay": 0.99}, 17),
    ],
)
def test_replay_is_the_eager_step_bit_for_bit(kind, options, kernels, threads):
    def train(wrap, call):
        model, opt, step = make(kind=kind, **options)
        step = wrap(step)
        losses = []
        for i in range(300):
            opt.param_groups[0]["lr"] = 1e-2 * 0.99**i
            losses.append(call(step, *data(seed=i)).item())
        return model, opt, losses, fastdl.random.default_generator.get_state(), step

    model, opt, losses, state, _ = train(lambda f: f, run_eager)
    fastdl.set_num_threads(threads)
    fastdl._core.set_work_per_thread(1024)
    replayed, opt2, losses2, state2, step = train(fastdl.capture, lambda f, X, y: f(X, y))
    assert losses == losses2
    assert_same_state(model, replayed)
    np.testing.assert_array_equal(state, state2)
    for a, b in zip(
        opt.state_dict()["state"].values(), opt2.state_dict()["state"].values(), strict=True
    ):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert len(step.programs()) == 1
    assert len(step.programs()[0]) == kernels
    assert "batch_norm_backward" in str(step)


def test_no_python_runs_in_a_replay():
    calls = []
    _, _, step = make()

    def counted(X, y):
        calls.append(1)
        return step(X, y)

    captured = fastdl.capture(counted)
    for i in range(5):
        captured(*data(seed=i))
    assert len(calls) == 1


def test_the_learning_rate_steers_a_recorded_step():
    model, opt, step = make(kind=optim.SGD)
    captured = fastdl.capture(step)
    captured(*data())
    opt.param_groups[0]["lr"] = 0.0
    before = [p.numpy().copy() for p in model.parameters()]
    captured(*data())
    for p, value in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.numpy(), value)
    assert len(captured.programs()) == 1


def test_inputs_are_not_changed_and_may_have_any_layout():
    _, _, step = make()
    captured = fastdl.capture(step)
    X, y = data()
    kept = X.copy()
    first = captured(np.asfortranarray(X), y).item(), captured(np.asfortranarray(X), y).item()
    _, _, eager = make()
    assert first == (run_eager(eager, X, y).item(), run_eager(eager, X, y).item())
    np.testing.assert_array_equal(X, kept)


def test_one_array_for_two_arguments_binds_neither_to_the_other():
    f = fastdl.capture(lambda X, T: ops.mse_loss(X, T, reduction="sum"))
    a, b = np.zeros(3), np.full(3, 2.0)
    assert f(a, a).item() == 0
    assert f(a, b).item() == 12
    assert f(b, a).item() == 12
    assert len(f.programs()) == 1


def test_gradients_are_left_as_the_eager_step_leaves_them():
    model, _, step = make()
    captured = fastdl.capture(step)
    captured(*data())
    model.zero_grad()
    captured(*data(seed=1))
    assert all(p.grad is not None for p in model.parameters())
    other, _, eager = make()
    run_eager(eager, *data())
    run_eager(eager, *data(seed=1))
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy())


@pytest.mark.parametrize("with_optimizer", [True, False])
def test_accumulation_without_zero_grad_is_the_eager_one(with_optimizer):
    def run(wrap, call):
        fastdl.manual_seed(1)
        model = nn.MLP(4, 8, 2)
        opt = optim.SGD(model.parameters(), lr=0.1) if with_optimizer else None
        loss_fn = nn.CrossEntropyLoss()

        def gradients(X, y):
            loss = loss_fn(model(X), y)
            loss.backward()
            return loss

        gradients = wrap(gradients)
        seen = []
        for i in range(12):
            seen.append(call(gradients, *data(seed=i)).item())
            seen += [p.grad.numpy().copy() for p in model.parameters()]
            if i % 3 == 2:
                if opt is not None:
                    opt.step()
                model.zero_grad()
        return seen, gradients

    eager, _ = run(lambda f: f, run_eager)
    replayed, captured = run(fastdl.capture, lambda f, X, y: f(X, y))
    for a, b in zip(eager, replayed, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(captured.programs()) == 2  # one that stores, one that adds


def test_a_step_that_skips_parameters_without_gradient():
    def run(wrap):
        W = fastdl.Tensor(np.ones((4, 2), "f4"), requires_grad=True)
        V = fastdl.Tensor(np.ones((3, 2), "f4"), requires_grad=True)
        opt = optim.SGD([W, V], lr=0.1, momentum=0.9)

        def half(X, y):
            ops.cross_entropy(ops.affine(X, W), y).backward()
            opt.step()

        half = wrap(half)
        for i in range(4):
            X, y = data(seed=i)
            half(fastdl.Tensor(X), fastdl.Tensor(y))
            if i == 1:
                V.grad = np.ones((3, 2), "f4")  # from now on V takes part
        return W.numpy(), V.numpy()

    for a, b in zip(run(lambda f: f), run(fastdl.capture), strict=True):
        np.testing.assert_array_equal(a, b)


def test_two_optimizers_in_one_step():
    def run(wrap):
        fastdl.manual_seed(2)
        f, g = nn.Affine(4, 8, activation="relu"), nn.Affine(8, 2)
        opts = [optim.Adam(f.parameters(), lr=0.01), optim.SGD(g.parameters(), lr=0.1)]
        shared = optim.SGD([*g.parameters(), *f.parameters()], lr=1e-3, momentum=0.5)

        def step(X, y):
            for opt in opts:
                opt.zero_grad()
            loss = ops.cross_entropy(g(f(X)), y)
            loss.backward()
            for opt in (*opts, shared):
                opt.step()
            return loss

        step = wrap(step)
        losses = [step(*map(fastdl.Tensor, data(seed=i))).item() for i in range(30)]
        return losses, f.state_dict(), g.state_dict()

    eager, replayed = run(lambda f: f), run(fastdl.capture)
    assert eager[0] == replayed[0]
    for a, b in zip(eager[1:], replayed[1:], strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_new_shapes_and_dtypes_record_new_programs():
    _, _, step = make()
    captured = fastdl.capture(step)
    for rows in (16, 5, 16, 5, 16):
        captured(*data(rows))
    assert len(captured.programs()) == 2
    X, y = data()
    captured(X, y.astype(np.int32))
    assert len(captured.programs()) == 3


def test_plain_arguments_select_a_program():
    @fastdl.capture
    def f(X, reduction, *, twice=False):
        loss = ops.mse_loss(X["a"], X["b"], reduction=reduction)
        return (loss, ops.relu(loss)) if twice else {"loss": loss, "name": reduction}

    X = {"a": np.full(4, 3.0), "b": np.zeros(4)}
    for _ in range(2):
        assert f(X, "mean")["loss"].item() == 9
        assert f(X, "sum") == {"loss": 36.0, "name": "sum"}
        total, again = f(X, "sum", twice=True)
        assert total.item() == again.item() == 36
    assert len(f.programs()) == 3
    with pytest.raises(TypeError, match="hashable, got set"):
        f({1, 2}, "sum")


def test_train_and_eval_record_their_own_programs_and_toggling_replays_them():
    model, _, _ = make()
    forward = fastdl.capture(lambda X: model(X))
    X, _ = data()
    training = forward(X).numpy()
    model.eval()
    evaluation = forward(X).numpy()
    np.testing.assert_array_equal(evaluation, model(X))
    assert not np.array_equal(training, evaluation)
    for _ in range(3):
        model.train()
        forward(X)
        model.eval()
        np.testing.assert_array_equal(forward(X).numpy(), model(X))
    assert len(forward.programs()) == 2


def test_a_step_may_set_the_mode_itself():
    model, _, step = make()

    @fastdl.capture
    def training_step(X, y):
        model.train()
        return step(X, y)

    twin, _, eager = make()
    for i in range(4):
        X, y = data(seed=i)
        np.testing.assert_array_equal(model.predict(X), twin.predict(X))
        model.eval()
        fastdl.manual_seed(i)
        a = training_step(X, y).item()
        fastdl.manual_seed(i)
        assert a == run_eager(eager, X, y).item()
        assert all(m.training for m in model.modules())
    assert len(training_step.programs()) == 1


def test_a_new_layout_records_again():
    model, _, _ = make()
    forward = fastdl.capture(lambda X: model(X))
    model.eval()
    X, _ = data()
    forward(X)
    optim.SGD(nn.Affine(2, 2).parameters())  # moves other parameters: recorded again, harmless
    forward(X)
    assert len(forward.programs()) == 1
    fresh = nn.Affine(4, 2)
    captured = fastdl.capture(lambda X: fresh(X))
    captured(X)
    opt = optim.SGD(fresh.parameters(), lr=1.0)  # moves the recorded parameters
    fresh.W.grad = np.ones((4, 2), "f4")
    opt.step()
    np.testing.assert_array_equal(captured(X).numpy(), fresh.eval()(X))
    fresh.to(np.float64)
    np.testing.assert_array_equal(captured(X.astype(float)).numpy(), fresh(X.astype(float)))


def test_freezing_a_parameter_records_again():
    layer = nn.Affine(4, 2)
    captured = fastdl.capture(lambda X, y: ops.cross_entropy(layer(X), y).backward())
    captured(*data())
    layer.zero_grad()
    layer.b.requires_grad = False
    captured(*data())
    assert layer.b.grad is None
    assert layer.W.grad is not None


def test_loading_a_state_dict_needs_no_new_recording():
    model, _, step = make()
    captured = fastdl.capture(step)
    captured(*data())
    start = model.state_dict()
    state = fastdl.random.default_generator.get_state()
    first = captured(*data(seed=1)).item()
    model.load_state_dict(start)
    fastdl.random.default_generator.set_state(state)
    assert captured(*data(seed=1)).item() == first
    assert len(captured.programs()) == 1


def test_results_are_copies_off_the_tape():
    double = fastdl.capture(lambda X: (ops.relu(X), X, ops.reshape(X, 4)))
    a = double(np.array([1.0, -2, 3, 4]))
    b = double(np.array([5.0, -6, 7, 8]))
    np.testing.assert_array_equal(a[0].numpy(), [1, 0, 3, 4])
    np.testing.assert_array_equal(b[0].numpy(), [5, 0, 7, 8])
    np.testing.assert_array_equal(b[1].numpy(), [5, -6, 7, 8])  # an input handed through
    np.testing.assert_array_equal(b[2].numpy(), [5, -6, 7, 8])
    assert not any(t.requires_grad for t in b)


def test_an_input_can_be_differentiated_inside():
    layer = nn.Affine(4, 2)

    @fastdl.capture
    def input_gradient(X, y):
        X.requires_grad_()
        ops.cross_entropy(layer(X), y).backward()
        layer.zero_grad()
        return X.grad

    for i in range(3):
        X, y = data(seed=i)
        x = fastdl.Tensor(X, requires_grad=True)
        ops.cross_entropy(layer(x), y).backward()
        layer.zero_grad()
        np.testing.assert_array_equal(input_gradient(X, y).numpy(), x.grad.numpy())
    assert len(input_gradient.programs()) == 1
    with pytest.raises(ValueError, match="must not require gradients"):
        input_gradient(x, y)


def test_no_grad_records_its_own_program():
    layer = nn.Affine(4, 2)
    f = fastdl.capture(lambda X: layer(X))
    X, _ = data()
    f(X)
    with fastdl.no_grad():
        np.testing.assert_array_equal(f(X).numpy(), f(X).numpy())
    assert len(f.programs()) == 2


def test_captured_functions_nest():
    _, _, step = make()
    inner = fastdl.capture(step)
    outer = fastdl.capture(lambda X, y: inner(X, y))
    twin = make()[2]
    fastdl.manual_seed(0)
    a = [outer(*data(seed=i)).item() for i in range(3)]
    fastdl.manual_seed(0)
    assert a == [run_eager(twin, *data(seed=i)).item() for i in range(3)]
    assert len(inner.programs()) == 0
    assert len(outer.programs()) == 1


def test_programs_are_bounded():
    f = fastdl.capture(lambda X: ops.relu(X))
    for n in range(80):
        f(np.zeros(n))
    assert len(f.programs()) == 64
