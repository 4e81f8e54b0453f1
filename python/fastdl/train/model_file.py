"""A trained model in one file: weights, how to build it, how to feed it, what it was tested on.

The mapping that `fastdl.save` writes:

=============  ===================================================================
``kind``       ``"fastdl.model"``, and ``version`` 1
``config``     ``sizes``, ``norm``, ``dropout`` of the `nn.MLP`
``data``       spec, fingerprint, rows, task, labels, features, target, test split
``X_scaler``   ``mean`` and ``scale`` of the inputs; ``y_scaler`` or None
``settings``   options of the training run
``results``    score on the held-out rows, as `evaluate` reproduces it
``model``      the state dict
``run``        state of the run after its last whole epoch, to resume it, or None
=============  ===================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastdl import io, nn
from fastdl._files import PathLike
from fastdl.random import default_generator
from fastdl.train import checks
from fastdl.train.data import Dataset, Rows, Scaler, load_data
from fastdl.train.evaluation import Judge
from fastdl.train.metrics import Array, accuracy, mse, r2
from fastdl.train.read_arrays import BUNDLED
from fastdl.train.read_csv import Schema
from fastdl.train.state import Weights, weights_of

KIND = "fastdl.model"
VERSION = 1

_WHOSE = ("spec", "fingerprint", "rows", "test_fraction", "seed")
_WHAT = ("task", "labels", "features", "target")


@dataclass
class TrainedModel:
    """A model with all that is needed to use and to test it; see the module's text."""

    model: nn.Module
    config: dict[str, Any]
    data: dict[str, Any]
    X_scaler: Scaler
    y_scaler: Scaler | None
    settings: dict[str, Any]
    results: dict[str, float] = field(default_factory=dict)
    run: dict[str, Any] | None = None

    @property
    def labels(self) -> list[str]:
        """Class names; empty for regression."""
        return list(self.data["labels"])

    @property
    def is_classifier(self) -> bool:
        """Whether the outputs are classes."""
        return bool(self.data["task"] == "classification")

    @property
    def parameters(self) -> int:
        """Number of learned values."""
        return sum(parameter.size for parameter in self.model.parameters())

    def outputs(self, X: Array) -> Array:
        """Return logits, or targets in their original unit, for rows as they were read."""
        with checks.evaluating(self.model):
            outputs = Judge(self.model, nn.MSELoss(), {}).outputs(self.X_scaler.apply(X))
        return outputs if self.y_scaler is None else self.y_scaler.undo(outputs)

    def score(self, outputs: Array, y: Array) -> dict[str, float]:
        """Return ``accuracy``, or ``r2`` and ``mse`` in the original unit, and ``rows``."""
        if self.is_classifier:
            return {"accuracy": accuracy(outputs, y), "rows": len(y)}
        return {"r2": r2(outputs, y), "mse": mse(outputs, y), "rows": len(y)}

    def load_data(self, spec: str | None = None, target: str | None = None) -> Dataset:
        """Load data as this model expects them; default: those it was trained on."""
        here = self.data["spec"] if spec is None else spec
        features, labels = self.data["features"], self.labels if self.is_classifier else None
        schema = Schema(self.config["sizes"][0], features, self.data["target"])
        try:
            data = load_data(
                here, task=self.data["task"], target=target, schema=schema, labels=labels
            )
        except FileNotFoundError as error:
            if spec is not None:
                raise
            raise FileNotFoundError(
                f"the data the model was trained on ({here!r}) are not here; name a file with"
                " the option --data"
            ) from error
        if data.y is not None and data.y.shape[1:] not in ((), (self.config["sizes"][-1],)):
            raise ValueError(
                f"load_data: the target of {here} must have {self.config['sizes'][-1]} columns"
                f" (as the model's outputs), got {data.y.shape[1]}"
            )
        return data

    def parts(self, data: Dataset) -> tuple[Rows, Rows] | None:
        """Return the rows trained on and held out, if these are the data of the training."""
        if data.y is None or data.fingerprint() != self.data["fingerprint"]:
            return None
        return data.split_rows(self.data["test_fraction"], self.data["seed"])

    def save(self, path: PathLike) -> None:
        """Write the file, atomically."""
        weights = weights_of(self.model)
        mapping = {
            "kind": KIND,
            "version": VERSION,
            "config": self.config,
            "data": self.data,
            "X_scaler": vars(self.X_scaler),
            "y_scaler": None if self.y_scaler is None else vars(self.y_scaler),
            "settings": self.settings,
            "results": self.results,
            "model": weights,
            "run": None if self.run is None else _without_twin(self.run, weights),
        }
        io.save(mapping, path)


def _without_twin(run: Mapping[str, Any], weights: Weights) -> dict[str, Any]:
    """Leave out the run's weights where they are the model's."""
    same = all(np.array_equal(run["model"][name], weights[name]) for name in weights)
    return {**run, "model": None if same else run["model"]}


def load_model(path: PathLike) -> TrainedModel:
    """Read a file of `TrainedModel.save` and build the model.

    Raises
    ------
    ValueError
        The file is damaged, or holds something else.
    FileNotFoundError
        There is no such file.
    """
    mapping = io.load(path)
    if mapping.get("kind") != KIND or mapping.get("version") != VERSION:
        raise ValueError(
            f"load_model: {str(path)!r} must be a model file ({KIND} version {VERSION}),"
            f" got kind {mapping.get('kind')!r} version {mapping.get('version')!r};"
            " make one with: fastdl train"
        )
    try:
        return _build(mapping)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(
            f"load_model: {str(path)!r} must be a whole model file, got {error!r} in it"
        ) from error


def build_mlp(config: Mapping[str, Any]) -> nn.MLP:
    """Return a new `nn.MLP` of a configuration."""
    return nn.MLP(list(config["sizes"]), norm=config["norm"], dropout=config["dropout"])


def _build(mapping: Mapping[str, Any]) -> TrainedModel:
    config, data, run = mapping["config"], mapping["data"], mapping["run"]
    weights = mapping["model"]
    _check_sizes(config["sizes"], weights)
    draws = default_generator.get_state()
    model = build_mlp(config)
    default_generator.set_state(draws)  # reading a file takes nothing from the random stream
    model.load_state_dict(weights)
    model.eval()
    if run is not None and run["model"] is None:
        run = {**run, "model": weights}
    X_scaler = _scaler(mapping["X_scaler"], config["sizes"][0])
    y_scaler = mapping["y_scaler"] and _scaler(mapping["y_scaler"], config["sizes"][-1])
    trained = TrainedModel(
        model, config, data, X_scaler, y_scaler, mapping["settings"], mapping["results"], run
    )
    missing = [name for name in (*_WHOSE, *_WHAT) if name not in data]
    if missing:
        raise ValueError(f"data without {missing[0]}")
    if trained.is_classifier and len(trained.labels) != config["sizes"][-1]:
        raise ValueError("as many labels as outputs are needed")
    return trained


def _check_sizes(sizes: list[int], weights: Mapping[str, Array]) -> None:
    """Refuse sizes that the weights in the file do not bear out, before memory is taken."""
    known = sum(weight.size for weight in weights.values())
    if not all(type(size) is int and size > 0 for size in sizes) or len(sizes) < 2:
        raise ValueError(f"sizes {sizes}")
    if sum(n * m for n, m in pairwise(sizes)) > known:
        raise ValueError(f"sizes {sizes} for {known} weights")


def _scaler(mapping: Mapping[str, Array], columns: int) -> Scaler:
    mean, scale = mapping["mean"], mapping["scale"]
    if mean.shape != (columns,) or scale.shape != (columns,) or not (scale > 0).all():
        raise ValueError(f"a scaler of {columns} columns is needed")
    return Scaler(mean, scale)


def softmax(logits: Array) -> npt.NDArray[np.float64]:
    """Return probabilities (N, C), in float64."""
    e = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float64] = e / e.sum(axis=1, keepdims=True)
    return shares


def stored_spec(spec: str) -> str:
    """Return what to remember of a data source: a name, or the path as it was given."""
    return spec if spec in BUNDLED else Path(spec).as_posix()
