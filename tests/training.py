"""Small tasks to train on, for the tests of the training loop."""

from __future__ import annotations

import os
import signal

import fastdl
import numpy as np
from fastdl import nn, optim
from fastdl.train import Callback, History, Trainer


def spirals(rows: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """Three arms that no linear model tells apart."""
    rng = np.random.default_rng(5)
    y = np.arange(rows) % 3
    radius = np.linspace(0.1, 1, rows)
    angle = 4 * radius + y * 2 * np.pi / 3 + rng.normal(0, 0.05, rows)
    X = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return X.astype(np.float32), y


X, Y = spirals()
LINE = np.linspace(-1, 1, 64, dtype=np.float32).reshape(-1, 1)


def classifier(
    seed: int = 1, dropout: float = 0.1, norm: str | None = "batch", **options
) -> Trainer:
    fastdl.manual_seed(seed)
    model = nn.MLP([2, 32, 3], norm=norm, dropout=dropout)
    return Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.02), **options)


def regressor(**options) -> Trainer:
    fastdl.manual_seed(1)
    model = nn.MLP([1, 16, 1])
    return Trainer(model, nn.MSELoss(), optim.Adam(model.parameters(), lr=0.02), **options)


def weights(trainer: Trainer) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in trainer.model.state_dict().items()}


def fit(trainer: Trainer, **options) -> History:
    return trainer.fit(X, Y, **{"epochs": 4, "progress": False, **options})


class Press(Callback):
    """Presses Ctrl-C at the beginning of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch_begin(self, trainer):
        if trainer.epoch == self.epoch:
            os.kill(os.getpid(), signal.SIGINT)
