"""Hooks into a training run, the progress bar, and a learning rate that falls."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastdl._extras import MissingExtraError, need

if TYPE_CHECKING:
    from fastdl.train.trainer import Trainer


class Callback:
    """Override what you need. ``trainer.stop()`` ends the run after the current epoch."""

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Before the first step."""

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Before an epoch; ``trainer.epoch`` is its number, from 0."""

    def on_epoch_end(self, trainer: Trainer, logs: dict[str, float]) -> None:
        """After an epoch, with its numbers, which are in the history already."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last step, also of an interrupted run."""


class _EpochFunction(Callback):
    """A function ``f(trainer, logs)`` as a callback."""

    def __init__(self, function: Callable[[Any, dict[str, float]], object]) -> None:
        self._function = function

    def on_epoch_end(self, trainer: Trainer, logs: dict[str, float]) -> None:
        """Call the function."""
        self._function(trainer, logs)


def as_callback(item: Any) -> Callback:
    """Return a callback as it is, and a function as a callback."""
    if isinstance(item, Callback):
        return item
    if not callable(item):
        raise TypeError(
            f"fit: callbacks must be Callback objects or functions, got {type(item).__name__}"
        )
    return _EpochFunction(item)


class CosineLR(Callback):
    """Lower the learning rate of every group from `lr` to zero along half a cosine.

    Source: Loshchilov & Hutter 2017, SGDR (arXiv:1608.03983), equation 5 without restarts.
    The rate depends on the epoch alone, so a resumed run goes on exactly.
    """

    def __init__(self, lr: float, epochs: int) -> None:
        self.lr, self.epochs = lr, epochs

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Set the rate of this epoch."""
        rate = self.lr * 0.5 * (1.0 + math.cos(math.pi * trainer.epoch / self.epochs))
        for group in trainer.optimizer.param_groups:
            group["lr"] = rate


class ProgressBar:
    """One tqdm bar over all steps; without tqdm a single warning, and no bar."""

    _told = False

    def __init__(self, epochs: int, steps_per_epoch: int) -> None:
        self._epochs, self._steps = epochs, steps_per_epoch
        self._bar: Any = None

    def open(self, epoch: int) -> None:
        """Show the bar, with the epochs done so far."""
        try:
            tqdm = need("tqdm", "the progress bar").tqdm
        except MissingExtraError as error:
            if not ProgressBar._told:
                ProgressBar._told = True
                warnings.warn(f"fit: going on without progress: {error}", stacklevel=4)
            return
        total = self._epochs * self._steps
        self._bar = tqdm(total=total, initial=epoch * self._steps, unit="step", dynamic_ncols=True)

    def begin(self, epoch: int) -> None:
        """Name the epoch, counted from 0."""
        if self._bar is not None:
            self._bar.set_description(f"epoch {epoch + 1}/{self._epochs}", refresh=False)

    def step(self) -> None:
        """Move on by one step."""
        if self._bar is not None:
            self._bar.update(1)

    def show(self, logs: dict[str, float]) -> None:
        """Show the numbers of an epoch."""
        if self._bar is not None:
            text = " ".join(f"{name} {value:.4g}" for name, value in logs.items())
            self._bar.set_postfix_str(text, refresh=False)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
