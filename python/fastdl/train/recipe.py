"""One training run as the command line knows it: settings in, `TrainedModel` and history out."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fastdl import nn, optim
from fastdl.random import manual_seed
from fastdl.train.callbacks import Callback, CosineLR
from fastdl.train.data import Dataset
from fastdl.train.history import History
from fastdl.train.model_file import TrainedModel, build_mlp, stored_spec
from fastdl.train.trainer import Trainer

VALIDATION_FRACTION = 0.1


@dataclass(frozen=True)
class Settings:
    """Options of a run; `patience` 0 trains all epochs on all training rows.

    With `patience`, a tenth of the training rows is held out to decide when to stop and which
    weights to keep. The test rows are only ever watched.
    """

    hidden: tuple[int, ...] = (128,)
    epochs: int = 60
    batch_size: int = 32
    lr: float = 2e-3
    optimizer: str = "adamw"
    weight_decay: float = 1e-2
    schedule: str = "cosine"
    dropout: float = 0.0
    label_smoothing: float = 0.1
    norm: str | None = None
    patience: int = 0
    test_fraction: float = 0.25
    seed: int = 0


def make_optimizer(settings: Settings, model: nn.Module) -> optim.Optimizer:
    """Return the optimizer that the settings name."""
    parameters = model.parameters()
    if settings.optimizer == "sgd":
        return optim.SGD(
            parameters, lr=settings.lr, momentum=0.9, weight_decay=settings.weight_decay
        )
    kind = {"adam": optim.Adam, "adamw": optim.AdamW}[settings.optimizer]
    return kind(parameters, lr=settings.lr, weight_decay=settings.weight_decay)


def make_loss(settings: Settings, task: str) -> nn.Module:
    """Return cross entropy for classes, mean squared error for numbers."""
    if task == "classification":
        return nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
    return nn.MSELoss()


class Run:
    """A data set, a model and a trainer, ready to go or to go on."""

    def __init__(
        self, data: Dataset, settings: Settings, resume: TrainedModel | None = None
    ) -> None:
        self.settings = settings
        self.split = data.split(settings.test_fraction, settings.seed)
        self.data = data
        manual_seed(settings.seed)
        sizes = [data.X.shape[1], *settings.hidden, data.outputs]
        config = {"sizes": sizes, "norm": settings.norm, "dropout": settings.dropout}
        model = build_mlp(config)
        loss = make_loss(settings, data.task)
        self.trainer = Trainer(model, loss, make_optimizer(settings, model))
        self.trained = TrainedModel(
            model, config, _data_record(data, settings), self.split.X_scaler,
            self.split.y_scaler, _plain(settings),
        )  # fmt: skip
        if resume is not None:
            self._resume(resume)

    def _resume(self, old: TrainedModel) -> None:
        if old.run is None:
            raise ValueError("resume: the file must hold a run to go on with, got none in it")
        if old.data["fingerprint"] != self.trained.data["fingerprint"]:
            raise ValueError(
                f"resume: data must be those of the first run ({old.data['spec']}),"
                f" got other ones ({self.data.spec})"
            )
        self.trainer.load_state_dict(old.run)
        self.trained.run = old.run

    def fit(self, checkpoint: str | None = None, progress: bool = True) -> History:
        """Train; on Ctrl-C the history says so and `trained` is usable."""
        settings = self.settings
        hooks: list[Callback] = [_Keeper(self, checkpoint)]
        if settings.schedule == "cosine":
            hooks.append(CosineLR(settings.lr, settings.epochs))
        early = settings.patience > 0
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fit: stopped")  # an error of ours says it below
            history = self.trainer.fit(
                self.split.X_train,
                self.split.y_train,
                validation=VALIDATION_FRACTION if early else (self.split.X_test, self.split.y_test),
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                patience=settings.patience if early else None,
                restore_best=early,
                callbacks=hooks,
                progress=progress,
            )
        if history.stopped == "diverged" or not _finite(self.trained.model):
            raise FloatingPointError(
                f"train: the loss must stay finite, got {history['loss'][-1]} in epoch"
                f" {history.epochs}; use a lower --lr"
            )
        self.trained.results = self.test()
        return history

    def test(self) -> dict[str, float]:
        """Score the held-out rows, by the same way that reads a model back from its file."""
        rows, y = self.split.rows_test, self.data.y
        assert y is not None
        return self.trained.score(self.trained.outputs(self.data.X[rows]), y[rows])


class _Keeper(Callback):
    """Keeps the state after each whole epoch, for the file; writes it if asked to."""

    def __init__(self, run: Run, checkpoint: str | None) -> None:
        self._run, self._checkpoint = run, checkpoint

    def on_epoch_end(self, trainer: Trainer, logs: dict[str, float]) -> None:
        """Copy the state."""
        trained = self._run.trained
        trained.run = trainer.state_dict()
        if self._checkpoint is not None and math.isfinite(logs["loss"]):
            trained.results = {}
            trained.save(self._checkpoint)


def _data_record(data: Dataset, settings: Settings) -> dict[str, Any]:
    return {
        "spec": stored_spec(data.spec),
        "fingerprint": data.fingerprint(),
        "rows": len(data),
        "task": data.task,
        "labels": data.labels,
        "features": data.features,
        "target": data.target,
        "test_fraction": settings.test_fraction,
        "seed": settings.seed,
    }


def _plain(settings: Settings) -> dict[str, Any]:
    return {**asdict(settings), "hidden": list(settings.hidden)}


def settings_of(trained: TrainedModel) -> Settings:
    """Return the settings a model was trained with."""
    stored = dict(trained.settings)
    return Settings(**{**stored, "hidden": tuple(stored["hidden"])})


def _finite(model: nn.Module) -> bool:
    return all(bool(np.isfinite(value).all()) for value in model.state_dict().values())
