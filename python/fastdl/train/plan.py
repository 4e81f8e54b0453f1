"""From the arguments of `Trainer.fit` to a checked plan, and from the plan to batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fastdl import nn
from fastdl._extras import need
from fastdl._files import PathLike, check_target
from fastdl.random import Generator
from fastdl.train import checks
from fastdl.train.callbacks import Callback
from fastdl.train.data import split_rows
from fastdl.train.evaluation import Judge
from fastdl.train.metrics import Array, larger_is_better

Pair = tuple[Array, Array]
Validation = float | tuple[Any, Any] | None
EpochFunction = Callable[[Any, dict[str, float]], object]

_BLOCK_BYTES = 32 << 20


@dataclass
class Options:
    """The arguments of `fit` apart from the data, as given."""

    validation: Validation = None
    epochs: int = 100
    batch_size: int = 32
    shuffle: bool = True
    monitor: str | None = None
    patience: int | None = None
    min_delta: float = 0.0
    restore_best: bool = True
    checkpoint: PathLike | None = None
    check_finite: bool = True


@dataclass
class Plan:
    """What a run does, checked.

    `slices` cut an epoch into batches. `sign` is +1 where larger values of `monitor` are better,
    else -1. `draw` is the generator's state after the split was drawn, None without a draw.
    """

    train: Pair
    validation: Pair | None
    slices: list[tuple[int, int]]
    options: Options
    monitor: str
    sign: float
    keep_best: bool
    split_seed: int | None
    draw: Array | None
    callbacks: list[Callback] = field(default_factory=list)


def make_plan(
    judge: Judge, generator: Generator, split_seed: int | None, X: Any, y: Any, options: Options
) -> Plan:
    """Check everything; change nothing, not even the generator."""
    _check_options(options)
    pair = judge.pair("fit", "y", X, y, options.check_finite)
    draw = None
    if isinstance(options.validation, float) and split_seed is None:
        split_seed, draw = _draw_seed(generator)
    train, validation = _validation(judge, pair, options, split_seed)
    names = ["loss"] + ([f"val_{name}" for name in judge.names] if validation else [])
    monitor = options.monitor or ("val_loss" if validation else "loss")
    if monitor not in names:
        raise ValueError(f"fit: monitor must be one of {names}, got {monitor!r}")
    keep = options.restore_best and (validation is not None or options.monitor is not None)
    slices = _slices(len(train[0]), options.batch_size, judge.model)
    sign = 1.0 if larger_is_better(monitor) else -1.0
    return Plan(train, validation, slices, options, monitor, sign, keep, split_seed, draw)


def _check_options(options: Options) -> None:
    options.epochs = checks.integer("fit", "epochs", options.epochs, 1)
    options.batch_size = checks.integer("fit", "batch_size", options.batch_size, 1)
    options.min_delta = checks.number("fit", "min_delta", options.min_delta)
    if options.patience is not None:
        options.patience = checks.integer("fit", "patience", options.patience, 1)
    if options.checkpoint is not None:
        need("safetensors", "fit: checkpoint")
        check_target(os.fspath(options.checkpoint), "fit")


def _draw_seed(generator: Generator) -> tuple[int, Array]:
    """Draw from a twin of the generator; its state is set once all checks have passed."""
    twin = Generator()
    twin.set_state(generator.get_state())
    return int(twin.numpy().integers(2**62)), twin.get_state()


def _validation(
    judge: Judge, pair: Pair, options: Options, split_seed: int | None
) -> tuple[Pair, Pair | None]:
    given = options.validation
    if given is None:
        return pair, None
    if isinstance(given, tuple) and len(given) == 2:
        return pair, judge.pair("fit", "yv", given[0], given[1], options.check_finite)
    if not isinstance(given, float) or split_seed is None:
        raise TypeError(
            f"fit: validation must be a pair (Xv, yv) or a float in (0, 1), got {given!r}"
        )
    X, y = pair
    labels = y if y.ndim == 1 and y.dtype.kind == "i" else None
    train, held_out = split_rows(len(X), labels, given, split_seed)
    return (X[train], y[train]), (X[held_out], y[held_out])


def _slices(rows: int, batch_size: int, model: nn.Module) -> list[tuple[int, int]]:
    starts = list(range(0, rows, batch_size))
    single = rows > 1 and rows - starts[-1] == 1 and batch_size > 1
    if single and any(isinstance(module, nn.BatchNorm1d) for module in model.modules()):
        starts.pop()
    return list(zip(starts, [*starts[1:], rows], strict=True))


def batches(plan: Plan, generator: Generator) -> Iterator[Pair]:
    """Yield the batches of one epoch, gathered by large blocks; draws the order first."""
    X, y = plan.train
    order = generator.numpy().permutation(len(X)) if plan.options.shuffle else None
    row_bytes = max(1, X[:1].nbytes)
    per_block = max(1, _BLOCK_BYTES // (row_bytes * plan.options.batch_size))
    for i in range(0, len(plan.slices), per_block):
        group = plan.slices[i : i + per_block]
        first, last = group[0][0], group[-1][1]
        rows = slice(first, last) if order is None else order[first:last]
        X_block, y_block = X[rows], y[rows]
        for start, stop in group:
            yield X_block[start - first : stop - first], y_block[start - first : stop - first]
