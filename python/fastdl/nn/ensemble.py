"""Populations of models of one shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastdl._array import Array
from fastdl.nn.containers import ModuleList
from fastdl.nn.module import Module
from fastdl.random import Generator, default_generator
from fastdl.tensor import ArrayLike


class Ensemble(ModuleList):
    """Models of one shape with seeds of their own: hyper-parameter sweeps, RL, cross-validation.

    Each model starts, drops units and trains as it would alone; ``capture(step, replicas=k)``
    trains them all in one native call.

    Parameters
    ----------
    make_model : callable
        ``make_model()`` returns a new Module; called k times.
    k : int
    seeds : sequence of k ints, optional
        Model i is made after ``manual_seed(seeds[i])``, and its Dropout layers draw from a
        generator with that seed.  Default: drawn from the default generator.

    Raises
    ------
    ValueError
        If k is less than 1 or the seeds are not k.
    TypeError
        If ``make_model`` returns something else than a Module.
    """

    def __init__(
        self, make_model: Callable[[], Module], k: int, seeds: Sequence[int] | None = None
    ) -> None:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ValueError(f"Ensemble: k must be an integer >= 1, got {k!r}")
        if seeds is None:
            seeds = default_generator.numpy().integers(0, 2**62, k).tolist()
        if len(seeds) != k:
            raise ValueError(f"Ensemble: seeds must be {k}, got {len(seeds)}")
        super().__init__(_made(make_model, int(seed)) for seed in seeds)

    def forward(self, X: Any) -> list[Any]:
        """Return the results of all models; a list of k inputs gives each its own."""
        inputs = X if isinstance(X, list | tuple) else [X] * len(self)
        return [model(x) for model, x in zip(self, inputs, strict=True)]

    def predict(self, X: ArrayLike, batch_size: int = 4096) -> Array:
        """Return the results of all models for all rows, (k, N, ...), in evaluation mode."""
        return np.stack([model.predict(X, batch_size) for model in self])


def _made(make_model: Callable[[], Module], seed: int) -> Module:
    """Make a model as after ``manual_seed(seed)``; the default generator stays as it was."""
    before = default_generator.get_state()
    try:
        default_generator.manual_seed(seed)
        model = make_model()
        own = Generator(seed)
        own.set_state(default_generator.get_state())
    finally:
        default_generator.set_state(before)
    if isinstance(model, Module):
        for module in model.modules():
            if getattr(module, "generator", own) is None:
                module.generator = own
    return model
