"""The training step that the tests of capture record."""

import fastdl
import numpy as np
from fastdl import nn, optim


def data(rows=16, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 4)).astype(np.float32)
    return X, (X[:, 0] * X[:, 1] > 0).astype(np.int64)


def make(seed=3, kind=optim.Adam, **options):
    fastdl.manual_seed(seed)
    model = nn.MLP(4, 64, 64, 2, norm="batch", dropout=0.2)
    opt = kind(model.parameters(), lr=1e-2, **options)
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.05)

    def step(X, y):
        opt.zero_grad()
        loss = loss_fn(model(X), y)
        loss.backward()
        opt.step()
        return loss

    return model, opt, step


def run_eager(step, X, y):
    return step(fastdl.Tensor(X), fastdl.Tensor(y))
