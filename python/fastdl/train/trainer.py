"""The training loop: batches, captured steps, validation, early stopping, checkpoints.

>>> model = fastdl.nn.MLP([64, 128, 10])
>>> optimizer = fastdl.optim.AdamW(model.parameters())
>>> trainer = Trainer(model, fastdl.nn.CrossEntropyLoss(), optimizer)
>>> history = trainer.fit(X, y, validation=0.1, epochs=50, patience=5)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastdl import io, nn, optim
from fastdl._files import PathLike
from fastdl._interrupt import Interrupt, deferred
from fastdl.capture import capture as record_and_replay
from fastdl.random import Generator, default_generator
from fastdl.tensor import Tensor
from fastdl.train import checks, state
from fastdl.train.callbacks import Callback, ProgressBar, as_callback
from fastdl.train.evaluation import EVAL_ROWS, Judge
from fastdl.train.history import History
from fastdl.train.metrics import Array, Metric
from fastdl.train.plan import EpochFunction, Options, Plan, Validation, batches, make_plan


class Trainer:
    """Trains a model.

    Parameters
    ----------
    model : nn.Module
        Takes (B, n), gives the outputs the loss wants.
    loss : callable
        ``loss(outputs, targets)`` -> scalar: a loss module or function of fastdl, or your own.
    optimizer : optim.Optimizer
        Over parameters of `model`.
    metrics : mapping of str to callable, optional
        ``metric(outputs, targets)`` on whole arrays, recorded for the validation data. Default:
        accuracy with a cross entropy, ``r2`` and ``mse`` with a mean squared error.
    generator : Generator, optional
        Draws shuffles and splits; default: the default generator (`fastdl.manual_seed`).
    capture : bool
        Record each step once and replay it (`fastdl.capture`). False runs every step eagerly:
        the same bits, slower, and the model may do anything.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Any],
        optimizer: optim.Optimizer,
        *,
        metrics: Mapping[str, Metric] | None = None,
        generator: Generator | None = None,
        capture: bool = True,
    ) -> None:
        _check_parts(model, loss, optimizer)
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.generator = default_generator if generator is None else generator
        self._judge = Judge(model, loss, metrics)
        self._step: Callable[[Array, Array], Any]
        self._step = record_and_replay(self._train_step) if capture else self._eager_step
        self._run = state.RunState()
        self._resumed = self._stop = False

    @property
    def history(self) -> History:
        """The record of the last or current run."""
        return self._run.history

    @property
    def epoch(self) -> int:
        """Number of completed epochs of the last or current run."""
        return self._run.epoch

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        validation: Validation = None,
        epochs: int = 100,
        batch_size: int = 32,
        shuffle: bool = True,
        monitor: str | None = None,
        patience: int | None = None,
        min_delta: float = 0.0,
        restore_best: bool = True,
        checkpoint: PathLike | None = None,
        callbacks: Iterable[Callback | EpochFunction] = (),
        progress: bool = True,
        check_finite: bool = True,
    ) -> History:
        """Train for a number of epochs; the model is left in evaluation mode.

        Every argument is checked before anything is changed. The same seed gives the same bits.
        After `resume`, `epochs` counts from the very beginning of the run.

        Parameters
        ----------
        X : array (N, n, ...)
            Of the model's dtype (lists are converted, arrays never).
        y : array (N,) or (N, ...)
            int32/int64 labels for a cross entropy, values of the model's dtype else. A
            regression target (N,) is taken as (N, 1) if the model has one output.
        validation : (Xv, yv), or float, optional
            Data to watch, or the share of rows (stratified by label) to take away for it.
        epochs, batch_size : int
            The last batch of an epoch may be smaller. A single left-over row joins the batch
            before it if the model has a BatchNorm, which needs two rows.
        shuffle : bool
            Draw a new order of rows every epoch.
        monitor : str, optional
            What decides on the best epoch: ``"val_loss"`` (default with validation), ``"loss"``
            or a metric such as ``"val_accuracy"`` (largest is best for accuracy and r2).
        patience : int, optional
            Stop after so many epochs in a row without an improvement.
        min_delta : float
            What is no larger counts as no improvement.
        restore_best : bool
            Go back to the weights of the best epoch at the end; needs validation or `monitor`.
        checkpoint : path, optional
            Written atomically after every epoch; see `resume`.
        callbacks : iterable
            `Callback` objects, or functions ``f(trainer, logs)`` called after every epoch.
        progress : bool
            Show a tqdm bar on stderr.
        check_finite : bool
            Look for NaN and Inf in X first.

        Returns
        -------
        History
            ``loss`` is the mean over the epoch's batches as they were trained. ``stopped`` says
            why the run ended. On Ctrl-C the step is completed, the model keeps the best weights
            or those of the last step, a warning says so, and ``history.interrupted`` is True;
            a second Ctrl-C does not wait.

        Raises
        ------
        ValueError, TypeError
            An argument does not fit; model, optimizer and generators are untouched.
        """
        options = Options(
            validation, epochs, batch_size, shuffle, monitor, patience, min_delta, restore_best,
            checkpoint, check_finite,
        )  # fmt: skip
        hooks = [as_callback(item) for item in callbacks]
        seed = self._run.split_seed if self._resumed else None
        with checks.evaluating(self.model):
            plan = make_plan(self._judge, self.generator, seed, X, y, options)
        plan.callbacks = hooks
        self._begin(plan)
        bar = ProgressBar(plan.options.epochs, len(plan.slices))
        if progress:
            bar.open(self.epoch)
        try:
            with deferred() as interrupt:
                self._loop(plan, interrupt, bar)
        finally:
            bar.close()
            self._finish(plan)
        return self.history

    def stop(self) -> None:
        """End the run after the current epoch; for callbacks."""
        self._stop = True

    def predict(self, X: Any, batch_size: int = EVAL_ROWS) -> Array:
        """Return the outputs (N, ...) of the model in evaluation mode."""
        rows = checks.integer("predict", "batch_size", batch_size, 1)
        X = checks.inputs("predict", "X", X, checks.model_dtype(self.model), finite=False)
        with checks.evaluating(self.model):
            return self._judge.outputs(X, rows)

    def evaluate(self, X: Any, y: Any) -> dict[str, float]:
        """Return ``loss`` and every metric in evaluation mode."""
        with checks.evaluating(self.model):
            return self._judge.measure(*self._judge.pair("evaluate", "y", X, y, finite=False))

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state, copied, as a mapping for `fastdl.save`.

        Taken after an epoch (in a callback), it continues bit for bit; ``state["model"]`` is the
        state dict of the best weights so far, or of the latest.
        """
        generators = state.generators_of(self.model, self.generator)
        return state.pack(self._run, self.model, self.optimizer, generators)

    def load_state_dict(self, mapping: Mapping[str, Any]) -> None:
        """Set model, optimizer, generators and history, all or none of them."""
        generators = state.generators_of(self.model, self.generator)
        self._run = state.restore(mapping, self.model, self.optimizer, generators)
        self._resumed = True

    def resume(self, path: PathLike) -> Trainer:
        """Go on from a checkpoint: the next `fit` continues that run, bit for bit.

        Give that `fit` the same data and options (more `epochs`, if you like).

        Raises
        ------
        ValueError
            The file is damaged, no checkpoint, or of another model or optimizer; nothing is
            changed then.
        """
        self.load_state_dict(io.load(path))
        return self

    def _train_step(self, X: Tensor, y: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss: Tensor = self.loss(self.model(X), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def _eager_step(self, X: Array, y: Array) -> Tensor:
        return self._train_step(Tensor(X), Tensor(y))

    def _begin(self, plan: Plan) -> None:
        if self._resumed:
            _check_columns(self.history, plan, self._judge.names)
        else:
            self._run = state.RunState(split_seed=plan.split_seed)
        if plan.draw is not None:
            self.generator.set_state(plan.draw)
        self._resumed = self._stop = False
        self.history.stopped = ""

    def _loop(self, plan: Plan, interrupt: Interrupt, bar: ProgressBar) -> None:
        try:
            for callback in plan.callbacks:
                callback.on_fit_begin(self)
            while not self._ended(plan.options):
                self._epoch(plan, interrupt, bar)
        except KeyboardInterrupt:
            self.history.stopped = "interrupted"

    def _ended(self, options: Options) -> bool:
        """Find out whether the run is over, and note why."""
        loss = self.history.get("loss", [0.0])[-1]
        if not math.isfinite(loss):
            self.history.stopped = "diverged"
        elif options.patience is not None and self._run.wait >= options.patience:
            self.history.stopped = "patience"
        elif self._stop:
            self.history.stopped = "callback"
        elif self.epoch >= options.epochs:
            self.history.stopped = "epochs"
        return bool(self.history.stopped)

    def _epoch(self, plan: Plan, interrupt: Interrupt, bar: ProgressBar) -> None:
        for callback in plan.callbacks:
            callback.on_epoch_begin(self)
        bar.begin(self.epoch)
        self.model.train()
        total = 0.0
        for X, y in batches(plan, self.generator):
            total += float(self._step(X, y)) * len(X)
            bar.step()
            interrupt.check()
        logs = {"loss": total / len(plan.train[0])}
        if plan.validation is not None:
            self.model.eval()
            logs |= {f"val_{k}": v for k, v in self._judge.measure(*plan.validation).items()}
            interrupt.check()
        bar.show(logs)
        self._complete(plan, logs)

    def _complete(self, plan: Plan, logs: dict[str, float]) -> None:
        """Book a whole epoch: history, best weights, checkpoint; then tell the callbacks."""
        self._run.history.append(logs)
        self._run.epoch += 1
        self._compare(plan, logs[plan.monitor])
        if plan.options.checkpoint is not None and math.isfinite(logs["loss"]):
            io.save(self.state_dict(), plan.options.checkpoint)
        for callback in plan.callbacks:
            callback.on_epoch_end(self, dict(logs))

    def _compare(self, plan: Plan, value: float) -> None:
        """Remember the best epoch, or count one more without an improvement."""
        run, best = self._run, self._run.best
        better = best is None or math.isnan(best.value)
        if best is not None and not better:
            better = plan.sign * (value - best.value) > plan.options.min_delta
        if not better:
            run.wait += 1
            return
        weights = state.weights_of(self.model) if plan.keep_best else None
        run.best = state.Best(value, run.epoch, weights)
        run.history.best_epoch = run.epoch if plan.keep_best else None
        run.wait = 0

    def _finish(self, plan: Plan) -> None:
        best = self._run.best
        if best is not None and best.weights is not None:
            self.model.load_state_dict(best.weights)
        self.model.eval()
        for callback in plan.callbacks:
            callback.on_fit_end(self)
        self._report(best)

    def _report(self, best: state.Best | None) -> None:
        """Warn of an end that nobody planned."""
        kept = "of the last step"
        if best is not None and best.weights is not None:
            kept = f"of epoch {best.epoch}, the best one"
        if self.history.interrupted:
            warnings.warn(
                f"fit: interrupted by Ctrl-C after {self.epoch} whole epochs; the model has the"
                f" weights {kept}",
                stacklevel=4,
            )
        if self.history.stopped == "diverged":
            warnings.warn(
                f"fit: stopped in epoch {self.epoch} because the loss became"
                f" {self.history['loss'][-1]}; the model has the weights {kept}; use a lower"
                " learning rate",
                stacklevel=4,
            )


def _check_parts(model: Any, loss: Any, optimizer: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"Trainer: model must be an nn.Module, got {type(model).__name__}")
    if not callable(loss):
        raise TypeError(f"Trainer: loss must be callable, got {type(loss).__name__}")
    if not isinstance(optimizer, optim.Optimizer):
        raise TypeError(
            f"Trainer: optimizer must be an optim.Optimizer, got {type(optimizer).__name__}"
        )
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(id(parameter) in owned for parameter in model.parameters()):
        raise ValueError(
            "Trainer: optimizer must hold parameters of the model, got none of them;"
            " build it with model.parameters()"
        )


def _check_columns(history: History, plan: Plan, names: list[str]) -> None:
    columns = ["loss"] + ([f"val_{name}" for name in names] if plan.validation else [])
    if list(history) and list(history) != columns:
        raise ValueError(
            f"fit: a resumed run must record {list(history)} as before, got {columns};"
            " give the same validation and metrics"
        )
