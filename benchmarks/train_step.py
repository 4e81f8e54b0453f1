"""One training step of a small network: plain, and captured."""

from __future__ import annotations

import fastdl as fd
import numpy as np

from benchmarks.timing import time_call

SIZES = (4, 64, 64, 2)
ROWS = 64


def run() -> dict[str, float]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((ROWS, SIZES[0])).astype(np.float32)
    y = rng.integers(0, SIZES[-1], ROWS)
    model = fd.nn.MLP(*SIZES)
    optimizer = fd.optim.Adam(model.parameters())
    loss_fn = fd.nn.CrossEntropyLoss()

    def step(X: fd.Tensor, y: fd.Tensor) -> fd.Tensor:
        optimizer.zero_grad()
        loss = loss_fn(model(X), y)
        loss.backward()
        optimizer.step()
        return loss

    captured = fd.capture(step)
    tensors = fd.tensor(X), fd.tensor(y)
    label = f"train step {'-'.join(map(str, SIZES))}, {ROWS} rows"
    return {
        "plain": time_call(f"{label}, plain", lambda: step(*tensors)),
        "captured": time_call(f"{label}, captured", lambda: captured(X, y)),
    }
