"""The state of a training run, and its way into a mapping for `fastdl.save` and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastdl import nn, optim
from fastdl.random import Generator, default_generator
from fastdl.train.history import History
from fastdl.train.metrics import Array

KIND = "fastdl.training"
VERSION = 1

Weights = dict[str, Array]


@dataclass
class Best:
    """The best epoch so far: monitored value, epoch from 1, and (if kept) its weights."""

    value: float
    epoch: int
    weights: Weights | None


@dataclass
class RunState:
    """Where a run stands after a number of whole epochs."""

    epoch: int = 0
    history: History = field(default_factory=History)
    best: Best | None = None
    wait: int = 0
    split_seed: int | None = None


def weights_of(model: nn.Module) -> Weights:
    """Return a copy of every parameter and buffer."""
    return {name: np.array(value) for name, value in model.state_dict().items()}


def generators_of(model: nn.Module, own: Generator) -> list[Generator]:
    """Return every generator the run draws from, in a fixed order, each once."""
    found = [default_generator, own]
    for module in model.modules():
        found += [value for value in vars(module).values() if isinstance(value, Generator)]
    return list({id(generator): generator for generator in found}.values())


def pack(
    run: RunState, model: nn.Module, optimizer: optim.Optimizer, generators: Iterable[Generator]
) -> dict[str, Any]:
    """Return the whole state as a mapping of copies.

    ``model`` holds the weights a user wants: the best ones if there are any. ``last`` holds the
    ones training goes on with, if they are others.
    """
    last, best = weights_of(model), run.best
    kept = best.weights if best is not None else None
    return {
        "kind": KIND,
        "version": VERSION,
        "model": last if kept is None else dict(kept),
        "last": None if kept is None or _equal(kept, last) else last,
        "best": best and {"value": best.value, "epoch": best.epoch, "kept": kept is not None},
        "optimizer": _copied(optimizer.state_dict()),
        "generators": [generator.get_state() for generator in generators],
        "epoch": run.epoch,
        "wait": run.wait,
        "split_seed": run.split_seed,
        "history": run.history.to_dict(),
    }


def _equal(one: Weights, other: Weights) -> bool:
    return all(one[name].tobytes() == other[name].tobytes() for name in one)


def _copied(value: Any) -> Any:
    """Copy a nested state, so that later steps cannot change it."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain else np.array(value)


def unpack(state: Mapping[str, Any]) -> RunState:
    """Return the run of a packed state.

    Raises
    ------
    ValueError
        The mapping is not such a state; the text says what is missing.
    """
    if state.get("kind") != KIND or state.get("version") != VERSION:
        raise ValueError(
            f"resume: the file must be a training checkpoint ({KIND} version {VERSION}),"
            f" got kind {state.get('kind')!r} version {state.get('version')!r}"
        )
    try:
        history = History(state["history"])
        best = state["best"]
        if best is not None:
            weights = dict(state["model"]) if best["kept"] else None
            best = Best(float(best["value"]), int(best["epoch"]), weights)
            history.best_epoch = best.epoch if weights is not None else None
        seed = state["split_seed"]
        run = RunState(
            int(state["epoch"]), history, best, int(state["wait"]),
            None if seed is None else int(seed),
        )  # fmt: skip
        if any(len(values) != run.epoch for values in history.values()):
            raise ValueError("a history of another length")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"resume: the file must be a whole training checkpoint, got {error!r} in it"
        ) from error
    return run


def restore(
    state: Mapping[str, Any],
    model: nn.Module,
    optimizer: optim.Optimizer,
    generators: list[Generator],
) -> RunState:
    """Set model, optimizer and generators; on any error all of them stay as they were."""
    run = unpack(state)
    seeds = _generator_states(state, generators)
    before = weights_of(model), _copied(optimizer.state_dict())
    weights = state["last"] if state.get("last") is not None else state["model"]
    model.load_state_dict(weights)
    try:
        optimizer.load_state_dict(state["optimizer"])
    except Exception as error:
        model.load_state_dict(before[0])
        optimizer.load_state_dict(before[1])
        if isinstance(error, ValueError | TypeError):
            raise
        raise ValueError(
            f"resume: the optimizer's state must fit {type(optimizer).__name__}, got {error!r}"
        ) from error
    for generator, seed in zip(generators, seeds, strict=True):
        generator.set_state(seed)
    return run


def _generator_states(state: Mapping[str, Any], generators: list[Generator]) -> list[Array]:
    seeds = state.get("generators")
    if not isinstance(seeds, list) or len(seeds) != len(generators):
        raise ValueError(
            f"resume: the checkpoint must hold {len(generators)} random generators,"
            f" got {len(seeds) if isinstance(seeds, list) else seeds!r};"
            " use the model and generators of the first run"
        )
    for seed in seeds:
        Generator().set_state(seed)  # raises for anything unfit, before a change
    return seeds
