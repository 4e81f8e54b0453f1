"""`Module.predict` for the first call, and for many rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastdl._array import Array, on_host
from fastdl.tape import no_grad
from fastdl.tensor import Tensor

if TYPE_CHECKING:
    from fastdl.nn.module import Module

#: Up to so many rows go through a recorded program; beyond, Python's share of the time is small.
FEW_ROWS = 256


def predict_plainly(model: Module, x: Array, batch_size: int) -> Array:
    """Call the model in evaluation mode, and prepare its program for the next few rows."""
    device = next((p.device for p in model.parameters()), "cpu")
    if len(x) <= FEW_ROWS and device == "cpu":
        from fastdl.inference import predictor

        model._compiled = predictor(model)
    modes = [(m, m._training) for m in model.modules()]
    try:
        model.eval()
        starts = range(0, max(len(x), 1), batch_size)
        if device == "cpu":
            return np.concatenate([model(x[i : i + batch_size]) for i in starts])
        with no_grad():
            parts = [model(Tensor(x[i : i + batch_size], device=device)) for i in starts]
            return np.concatenate([on_host(t._array) for t in parts])
    finally:
        for module, training in modes:
            module.training = training
