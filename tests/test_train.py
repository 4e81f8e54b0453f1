"""The training loop: it learns, repeats itself bit for bit, and survives what users do to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import fastdl
import numpy as np
import pytest
from fastdl import nn, ops, optim
from fastdl.train import Callback, CosineLR, History, Trainer, load_data
from fastdl.train.metrics import accuracy, mse, r2
from subprocesses import python
from training import LINE, Press, X, Y, classifier, fit, regressor, weights


def test_classification():
    trainer = classifier()
    history = fit(trainer, validation=0.2, epochs=60)
    assert list(history) == ["loss", "val_loss", "val_accuracy"] and history.epochs == 60
    assert max(history["val_accuracy"]) >= 0.95 and history.stopped == "epochs"
    scores = trainer.evaluate(X, Y)
    assert scores["accuracy"] >= 0.95
    assert scores["accuracy"] == (trainer.predict(X).argmax(axis=1) == Y).mean()


@pytest.mark.parametrize("y", [np.sin(3 * LINE), np.sin(3 * LINE)[:, 0]])
def test_regression(y):
    trainer = regressor()
    history = trainer.fit(LINE, y, validation=(LINE, y), epochs=200, progress=False)
    assert list(history) == ["loss", "val_loss", "val_r2", "val_mse"]
    scores = trainer.evaluate(LINE, y)
    assert scores["r2"] > 0.98 and scores["mse"] == pytest.approx(scores["loss"], rel=1e-5)


def test_own_loss_and_metrics():
    model = nn.MLP([1, 16, 1])

    def loss(outputs, targets):
        return ops.mse_loss(outputs, targets)

    metrics = {"worst": lambda outputs, targets: float(np.abs(outputs - targets).max())}
    trainer = Trainer(
        model, loss, optim.SGD(model.parameters(), lr=0.1, momentum=0.9), metrics=metrics
    )
    y = 0.5 * LINE
    history = trainer.fit(LINE, y, validation=(LINE, y), epochs=40, progress=False)
    assert list(history) == ["loss", "val_loss", "val_worst"]
    assert history["val_worst"][-1] < 0.2 * history["val_worst"][0]


def test_the_loss_of_an_epoch_is_the_mean_over_its_rows():
    model = nn.MLP([2, 8, 3])
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.0))
    history = fit(trainer, batch_size=100, epochs=1)
    assert history["loss"][0] == pytest.approx(trainer.evaluate(X, Y)["loss"], rel=1e-6)


def test_metrics_against_definitions():
    outputs = np.array([[2, 1], [0, 1], [3, 4], [1, 0]], np.float32)
    assert accuracy(outputs, np.array([0, 1, 0, -100])) == 2 / 3
    T = np.array([[1.0], [2.0], [4.0]])
    P = np.array([[1.5], [2.0], [3.0]], np.float32)
    assert mse(P, T) == pytest.approx(1.25 / 3)
    assert r2(P, T) == pytest.approx(1 - 1.25 / np.square(T - T.mean()).sum())
    assert r2(T, T) == 1 and r2(P, np.ones((3, 1))) == 0


@pytest.mark.parametrize("options", [{}, {"norm": None}, {"dropout": 0.0}])
def test_same_seed_same_bits(options):
    runs = []
    for capture in (True, True, False):
        trainer = classifier(capture=capture, **options)
        history = fit(trainer, validation=0.25, batch_size=50)
        runs.append((weights(trainer), history.to_dict()))
    assert runs[0] == runs[1], "the same seed gives other bits"
    assert runs[0] == runs[2], "captured steps are not the eager ones"
    other = classifier(seed=2, **options)
    fit(other, validation=0.25, batch_size=50)
    assert weights(other) != runs[0][0]


def test_shuffle():
    ordered = [fit(classifier(dropout=0.0), shuffle=False).to_dict() for _ in range(2)]
    assert ordered[0] == ordered[1] != fit(classifier(dropout=0.0)).to_dict()


def test_own_generator_leaves_the_default_alone():
    runs = []
    for seed in (3, 3, 4):
        trainer = classifier(dropout=0.0, generator=fastdl.Generator(seed))
        before = fastdl.random.default_generator.get_state()
        fit(trainer)
        assert (fastdl.random.default_generator.get_state() == before).all()
        runs.append(weights(trainer))
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("norm", [None, "batch"])
@pytest.mark.parametrize("rows", [64, 65, 67])
def test_every_row_is_used_once_per_epoch(norm, rows):
    seen = []
    trainer = classifier(norm=norm, dropout=0.0, capture=False)
    forward = trainer.model.forward

    def watch(batch):
        if trainer.model.training:
            seen.append(batch.numpy().copy())
        return forward(batch)

    trainer.model.forward = watch
    trainer.fit(X[:rows], Y[:rows], batch_size=32, epochs=1, progress=False)
    assert sorted(map(tuple, np.concatenate(seen))) == sorted(map(tuple, X[:rows]))
    single = norm is None and rows == 65
    assert min(map(len, seen)) == (1 if single else 3 if rows == 67 else 32)


def test_patience_and_best_weights():
    trainer = classifier()
    seen = []
    history = fit(
        trainer, validation=(X[::4], Y[::4]), monitor="val_accuracy", patience=4, epochs=200,
        callbacks=[lambda trainer, logs: seen.append((logs["val_accuracy"], weights(trainer)))],
    )  # fmt: skip
    values = history["val_accuracy"]
    best = int(np.argmax(values))
    assert history.stopped == "patience" and history.epochs == best + 5 < 200
    assert history.best_epoch == best + 1
    assert weights(trainer) == seen[best][1] != seen[-1][1]
    assert trainer.evaluate(X[::4], Y[::4])["accuracy"] == max(values)


def test_min_delta_and_keeping_the_last_weights():
    trainer = classifier()
    history = fit(trainer, validation=0.2, patience=2, min_delta=1e9, restore_best=False, epochs=50)
    assert history.epochs == 3 and history.best_epoch is None
    twin = classifier()
    fit(twin, validation=0.2, epochs=3, restore_best=False)
    assert weights(trainer) == weights(twin)


def test_a_loss_that_is_no_number_ends_the_run():
    trainer = regressor()
    trainer.optimizer.param_groups[0]["lr"] = 1e30
    with pytest.warns(UserWarning, match=r"the loss became .*lower learning rate"):
        history = trainer.fit(LINE, LINE, epochs=50, progress=False)
    assert history.stopped == "diverged" and history.epochs < 50


@pytest.mark.parametrize("validation", [None, 0.2])
def test_ctrl_c_leaves_a_usable_model(validation):
    trainer = classifier()
    with pytest.warns(UserWarning, match="interrupted by Ctrl-C after 2 whole epochs"):
        history = fit(trainer, validation=validation, epochs=50, callbacks=[Press(2)])
    assert history.interrupted and history.epochs == 2
    assert {len(values) for values in history.values()} == {2}
    assert np.isfinite(trainer.predict(X)).all() and not trainer.model.training
    twin = classifier()
    fit(twin, validation=validation, epochs=2)
    assert (weights(trainer) == weights(twin)) == (validation is not None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    fit(trainer, epochs=1)


def test_ctrl_c_in_a_script():
    """A real signal at a random moment: the step ends, the script goes on."""
    code = """
        import numpy as np, fastdl, sys
        from fastdl import nn, optim
        model = nn.MLP([2, 64, 2])
        X = np.random.default_rng(0).normal(size=(4096, 2)).astype(np.float32)
        trainer = fastdl.train.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()))
        tell = lambda trainer, logs: print("epoch", flush=True)
        history = trainer.fit(X, (X[:, 0] > 0).astype(int), epochs=100000, callbacks=[tell],
                              progress=False)
        print("went on", history.interrupted, len(history["loss"]) == trainer.epoch)
        print(np.isfinite(model.predict(X)).all())
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None and child.stdout.readline() == "epoch\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=300)
    assert out.splitlines()[-2:] == ["went on True True", "True"]
    assert "fit: interrupted by Ctrl-C" in err and "Traceback" not in err
    assert child.returncode == 0


def test_callbacks():
    class Watch(Callback):
        calls = ""

        def on_fit_begin(self, trainer):
            self.calls += "<"

        def on_epoch_begin(self, trainer):
            self.calls += str(trainer.epoch)

        def on_epoch_end(self, trainer, logs):
            self.calls += "." if logs["loss"] == trainer.history["loss"][-1] else "?"
            if trainer.epoch == 3:
                trainer.stop()

        def on_fit_end(self, trainer):
            self.calls += ">"

    watch = Watch()
    history = fit(classifier(), epochs=9, callbacks=[watch])
    assert watch.calls == "<0.1.2.>" and history.stopped == "callback"


def test_an_error_in_a_callback_comes_out():
    trainer = classifier()

    def fail(trainer, logs):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fit(trainer, callbacks=[fail])
    assert trainer.history.epochs == trainer.epoch == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert fit(trainer).epochs == 4


def test_cosine_schedule_steers_captured_steps():
    rates = []

    def note(trainer, logs):
        rates.append(trainer.optimizer.param_groups[0]["lr"])

    fit(captured := classifier(), callbacks=[CosineLR(0.02, 4), note])
    fit(eager := classifier(capture=False), callbacks=[CosineLR(0.02, 4)])
    assert rates == pytest.approx([0.02, 0.01 + 0.01 * 0.5**0.5, 0.01, 0.01 - 0.01 * 0.5**0.5])
    assert weights(captured) == weights(eager)
    constant = classifier()
    fit(constant)
    assert weights(captured) != weights(constant)


def test_history(tmp_path):
    history = History({"loss": [2.0, 1.0], "val_loss": [3.0, 2.5], "val_accuracy": [0.1, 0.4]})
    assert history.epochs == 2 and history["loss"][1] == 1.0 and len(history) == 3
    with pytest.raises(ValueError, match="must be named"):
        history.append({"loss": 1.0})
    assert history.epochs == 2
    for name, magic in [("c.png", b"\x89PNG"), ("c.svg", b"<?xml"), ("c.pdf", b"%PDF")]:
        history.plot(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(magic)
    with pytest.raises(ValueError, match=r"path must end in .png, .svg or .pdf, got 'c.jpeg2'"):
        history.plot("c.jpeg2")
    with pytest.raises(ValueError, match="must have an epoch"):
        History().plot(tmp_path / "c.png")
    assert sorted(os.listdir(tmp_path)) == ["c.pdf", "c.png", "c.svg"]


def test_progress_bar(capsys):
    fit(classifier(), progress=True, epochs=2)
    assert "epoch 2/2: 100%" in capsys.readouterr().err
    fit(classifier(), progress=False)
    assert capsys.readouterr().err == ""


def test_without_tqdm_and_matplotlib():
    done = python(
        """
        import sys, warnings
        sys.modules["tqdm"] = sys.modules["matplotlib"] = sys.modules["matplotlib.figure"] = None
        import numpy as np, fastdl
        from fastdl import nn, optim
        X = np.ones((8, 2), np.float32)
        model = nn.MLP([2, 3])
        trainer = fastdl.train.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(3):
                trainer.fit(X, np.zeros(8, int), epochs=2)
        for warning in caught:
            print(warning.message)
        print(trainer.history.epochs)
        try:
            trainer.history.plot("curves.png")
        except ImportError as error:
            print(error)
        """
    )
    bar, epochs, plot = done.stdout.splitlines()
    assert "going on without progress" in bar and "needs tqdm" in bar and epochs == "2"
    assert "History.plot needs matplotlib" in plot and 'pip install "fastdl[train]"' in plot


def test_digits_to_known_accuracy():
    part = load_data("digits").split(0.25, seed=0)
    fastdl.manual_seed(0)
    model = nn.MLP([64, 64, 10])
    optimizer = optim.AdamW(model.parameters(), lr=2e-3)
    trainer = Trainer(model, nn.CrossEntropyLoss(label_smoothing=0.1), optimizer)
    trainer.fit(part.X_train, part.y_train, epochs=20, progress=False)
    assert trainer.evaluate(part.X_test, part.y_test)["accuracy"] >= 0.96
