"""What users give to the training loop: every mistake is found before anything is changed."""

from __future__ import annotations

import fastdl
import numpy as np
import pytest
from fastdl import nn, optim
from fastdl.train import Trainer
from training import X, Y, classifier, fit, weights


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"X": X.astype(np.float64)}, TypeError, r'X must be float32 .* use X.astype\("float32"\)'),
        ({"X": X[:, 0]}, ValueError, r"X must have shape \(N, n\) .*reshape\(-1, 1\)"),
        ({"X": X[:0], "y": Y[:0]}, ValueError, r"X must have shape \(N, n\) with N >= 1"),
        ({"X": X[:, :1]}, ValueError, r"affine"),
        (
            {"X": np.where(X > 0.9, np.nan, X)},
            ValueError,
            r"X must be finite, got NaN or Inf in row",
        ),
        (
            {"y": Y[:-1]},
            ValueError,
            r"X and y must be equally long, got 240 rows of X and y of shape",
        ),
        ({"y": Y + 1}, ValueError, r"y must be labels in 0..2 .* got 3 at row 2"),
        ({"y": Y - 1}, ValueError, r"y must be labels in 0..2 .* got -1 at row 0"),
        ({"y": Y.astype(np.uint8)}, TypeError, r"y must be labels of int32 or int64 .*got uint8"),
        ({"y": Y.astype(np.float64)}, TypeError, r"y must be labels .* got float64"),
        ({"y": np.stack([Y, Y], 1)}, ValueError, r"y must be \(240,\)"),
        ({"validation": 1.5}, ValueError, r"split: fraction must be between 0 and 1"),
        ({"validation": 0.0001}, ValueError, r"split: both parts must have rows"),
        ({"validation": "0.2"}, TypeError, r"validation must be a pair \(Xv, yv\) or a float"),
        ({"validation": (X, Y[:-1])}, ValueError, r"X and yv must be equally long"),
        ({"validation": (X, Y + 5)}, ValueError, r"yv must be labels in 0..2"),
        ({"epochs": 0}, ValueError, r"epochs must be >= 1, got 0"),
        ({"epochs": 2.0}, TypeError, r"epochs must be an int, got float"),
        ({"batch_size": -1}, ValueError, r"batch_size must be >= 1, got -1"),
        ({"batch_size": True}, TypeError, r"batch_size must be an int, got bool"),
        ({"patience": 0}, ValueError, r"patience must be >= 1"),
        ({"min_delta": -0.1}, ValueError, r"min_delta must be finite and >= 0"),
        ({"monitor": "val_loss"}, ValueError, r"monitor must be one of \['loss'\], got 'val_loss'"),
        ({"checkpoint": "/nowhere/at/all"}, OSError, r"the folder of '/nowhere/at/all' must exist"),
        (
            {"callbacks": [3]},
            TypeError,
            r"callbacks must be Callback objects or functions, got int",
        ),
    ],
)
def test_arguments_of_fit(change, error, message):
    trainer = classifier()
    before = weights(trainer), fastdl.random.default_generator.get_state().tolist()
    arguments = {"X": X, "y": Y, "progress": False, **change}
    with pytest.raises(error, match=message):
        trainer.fit(arguments.pop("X"), arguments.pop("y"), **arguments)
    assert (weights(trainer), fastdl.random.default_generator.get_state().tolist()) == before
    assert trainer.model.training and trainer.history.epochs == 0


def test_arguments_of_trainer():
    model, loss = nn.MLP([2, 3]), nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters())
    for arguments, error, message in [
        (("model", loss, optimizer), TypeError, "model must be an nn.Module, got str"),
        ((model, None, optimizer), TypeError, "loss must be callable, got NoneType"),
        ((model, loss, None), TypeError, "optimizer must be an optim.Optimizer, got NoneType"),
        (
            (nn.MLP([2, 3]), loss, optimizer),
            ValueError,
            "optimizer must hold parameters of the model",
        ),
    ]:
        with pytest.raises(error, match=message):
            Trainer(*arguments)
    trainer = Trainer(model, nn.CrossEntropyLoss(reduction="none"), optimizer)
    with pytest.raises(ValueError, match="loss must return a scalar"):
        trainer.fit(X, Y, progress=False)


def test_lists_are_converted_and_nan_may_pass():
    trainer = classifier()
    assert trainer.fit(X.tolist(), Y.tolist(), epochs=1, progress=False).epochs == 1
    rows = X.copy()
    rows[3] = np.nan
    with pytest.warns(UserWarning, match="diverged|became nan"):
        assert trainer.fit(rows, Y, epochs=1, progress=False, check_finite=False).epochs == 1


def test_modes_are_put_back():
    trainer = classifier()
    trainer.predict(X)
    trainer.evaluate(X, Y)
    assert all(module.training for module in trainer.model.modules())
    next(iter(trainer.model.children())).eval()
    before = [module.training for module in trainer.model.modules()]
    trainer.predict(X)
    assert [module.training for module in trainer.model.modules()] == before


def test_prediction_does_not_depend_on_the_batch():
    trainer = classifier()
    fit(trainer, epochs=1)
    whole = trainer.predict(X)
    assert whole.tobytes() == trainer.predict(X, batch_size=7).tobytes()
    assert whole.tobytes() == trainer.model.predict(X).tobytes()
