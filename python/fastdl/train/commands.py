"""What the commands of ``fastdl`` do, once their arguments are read."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import platform
import sys
from argparse import Namespace
from typing import Any

import numpy as np

import fastdl
from fastdl._extras import need
from fastdl._files import check_target, write_atomically
from fastdl._interrupt import deferred
from fastdl.train.data import Dataset, Rows, load_data
from fastdl.train.history import History, check_plot
from fastdl.train.metrics import Array
from fastdl.train.model_file import TrainedModel, load_model, softmax
from fastdl.train.recipe import Run, Settings, settings_of

INTERRUPTED = 130


def train(arguments: Namespace) -> int:
    """Train, save the model, draw the curves, end with the test score."""
    plot = None if arguments.plot in ("", "none") else arguments.plot
    _check_outputs(arguments, plot)
    old = load_model(arguments.resume) if arguments.resume else None
    settings = _settings(arguments, None if old is None else settings_of(old))
    if old is None:
        data = load_data(arguments.data, task=arguments.task, target=arguments.target)
    else:
        data = old.load_data(arguments.data, arguments.target)
    run = Run(data, settings, old)
    quiet = arguments.quiet or arguments.json
    _say(quiet, _describe(run))
    history = run.fit(arguments.checkpoint, progress=not arguments.quiet)
    with deferred():
        _write(run.trained, history, arguments.out, plot)
    _say(quiet, f"wrote {arguments.out}" + (f" and {plot}" if plot and history.epochs else ""))
    _report_training(run, history, arguments, plot)
    return INTERRUPTED if history.interrupted else 0


def _check_outputs(arguments: Namespace, plot: str | None) -> None:
    """Find out now, not after the training, whether the results can be written."""
    need("safetensors", "fastdl train")
    for path in filter(None, [arguments.out, plot, arguments.checkpoint]):
        check_target(path, "train")
    if plot is not None:
        check_plot(plot)


def _settings(arguments: Namespace, old: Settings | None) -> Settings:
    """Return the settings given, over those of the run to resume or the defaults."""
    names = [item.name for item in dataclasses.fields(Settings)]
    given = {name: getattr(arguments, name) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    if "norm" in given:
        given["norm"] = None if given["norm"] == "none" else given["norm"]
    for name, value in given.items() if old is not None else ():
        if name not in ("epochs", "patience") and value != getattr(old, name):
            raise ValueError(
                f"--{name.replace('_', '-')} must be {getattr(old, name)} as in the run to"
                f" resume, got {value}; leave it out"
            )
    return dataclasses.replace(old or Settings(), **given)


def _describe(run: Run) -> str:
    data, trained, settings = run.data, run.trained, run.settings
    kind = f"{len(data.labels)} classes" if trained.is_classifier else "regression"
    layers = "-".join(str(size) for size in trained.config["sizes"])
    return (
        f"{data.spec}: {len(data)} rows, {data.X.shape[1]} features, {kind};"
        f" {len(run.split.rows_train)} to train, {len(run.split.rows_test)} held out\n"
        f"model {layers}, {trained.parameters} parameters; {settings.optimizer}"
        f" lr {settings.lr:g}, batch {settings.batch_size}, {settings.epochs} epochs"
    )


def _write(trained: TrainedModel, history: History, out: str, plot: str | None) -> None:
    trained.save(out)
    if plot is not None and history.epochs:
        history.plot(plot)


def _report_training(run: Run, history: History, arguments: Namespace, plot: str | None) -> None:
    results = run.trained.results
    if not arguments.json:
        print(_score_line("test ", results))
        return
    _print_json(
        {
            **{f"test_{name}": value for name, value in results.items()},
            "epochs": history.epochs,
            "stopped": history.stopped,
            "best_epoch": history.best_epoch,
            "parameters": run.trained.parameters,
            "sizes": run.trained.config["sizes"],
            "settings": run.trained.settings,
            "history": history.to_dict(),
            "out": arguments.out,
            "plot": plot,
        }
    )


def evaluate(arguments: Namespace) -> int:
    """Test a model; by default on the rows that were held out when it was trained."""
    trained = load_model(arguments.model)
    data = trained.load_data(arguments.data, arguments.target)
    y = data.y
    if y is None:
        raise ValueError(f"{data.spec} must have a target to test against, got none")
    parts = trained.parts(data)
    part, rows = _choose_part(arguments, data, parts)
    result = trained.score(trained.outputs(data.X[rows]), y[rows])
    if arguments.json:
        same = part == "test" and result == trained.results if trained.results else None
        _print_json(
            {"model": arguments.model, "data": data.spec, "part": part, **result}
            | {"as_in_training": same}
        )
    else:
        print(_score_line("" if part == "all" else f"{part} ", result))
    return 0


def _choose_part(
    arguments: Namespace, data: Dataset, parts: tuple[Rows, Rows] | None
) -> tuple[str, Rows]:
    part = arguments.part or ("all" if parts is None else "test")
    if parts is None and (part != "all" or arguments.data is None):
        raise ValueError(
            f"{data.spec} must be the data the model was trained on, got other rows;"
            " test all rows with --data and --part all"
        )
    if part == "all" or parts is None:
        return "all", np.arange(len(data))
    return part, parts[1] if part == "test" else parts[0]


def predict(arguments: Namespace) -> int:
    """Write one prediction per row as CSV or JSON, and the score if the target is there."""
    trained = load_model(arguments.model)
    if arguments.proba and not trained.is_classifier:
        raise ValueError("--proba must go with a classifier, got a regression model; leave it out")
    if arguments.out is not None:
        check_target(arguments.out, "predict")
    data = trained.load_data(arguments.data, arguments.target)
    outputs = trained.outputs(data.X)
    columns = _columns(trained, data, outputs, arguments.proba)
    scores = _scores(trained, data, outputs)
    if arguments.out is not None:
        text = _csv_text(columns)
        write_atomically(arguments.out, lambda file: file.write(text.encode()), "predict")
    if arguments.json:
        _print_json({"model": arguments.model, "data": data.spec, **scores, "columns": columns})
    elif arguments.out is None:
        sys.stdout.write(_csv_text(columns))
    else:
        print(f"wrote {len(data)} predictions to {arguments.out}")
        _print_scores(trained, scores)
    return 0


def _columns(
    trained: TrainedModel, data: Dataset, outputs: Array, proba: bool
) -> dict[str, list[Any]]:
    """Return the columns of the answer by name."""
    columns: dict[str, list[Any]] = {"row": list(range(len(data)))}
    answers = outputs.argmax(axis=1) if trained.is_classifier else outputs
    columns |= _named(trained, "prediction", answers)
    if data.y is not None:
        columns |= _named(trained, "target", data.y)
        parts = trained.parts(data)
        if parts is not None:
            part = np.full(len(data), "train")
            part[parts[1]] = "test"
            columns["part"] = part.tolist()
    if proba:
        shares = softmax(outputs)
        columns |= {f"p_{label}": shares[:, k].tolist() for k, label in enumerate(trained.labels)}
    return columns


def _named(trained: TrainedModel, name: str, values: Array) -> dict[str, list[Any]]:
    if trained.is_classifier:
        return {name: [trained.labels[code] for code in values]}
    if values.shape[1] == 1:
        return {name: values[:, 0].tolist()}
    return {f"{name}_{k}": values[:, k].tolist() for k in range(values.shape[1])}


def _scores(trained: TrainedModel, data: Dataset, outputs: Array) -> dict[str, float]:
    """Return the score on all rows, and on the held-out ones if these are the training's data."""
    if data.y is None:
        return {}
    scores = trained.score(outputs, data.y)
    parts = trained.parts(data)
    if parts is not None:
        test = trained.score(outputs[parts[1]], data.y[parts[1]])
        scores |= {f"test_{name}": value for name, value in test.items()}
    return scores


def _print_scores(trained: TrainedModel, scores: dict[str, float]) -> None:
    name = "accuracy" if trained.is_classifier else "r2"
    for key in (name, f"test_{name}"):
        if key in scores:
            print(f"{key.replace('_', ' ')} {scores[key]:.3f}")


def _csv_text(columns: dict[str, list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def info(arguments: Namespace) -> int:
    """Describe a model file, or what this installation runs on."""
    facts = _installation() if arguments.model is None else _model_facts(arguments.model)
    if arguments.json:
        _print_json(facts)
        return 0
    for name, value in facts.items():
        print(f"{name:<14} {_plain_text(value)}")
    return 0


def _installation() -> dict[str, Any]:
    return {
        "fastdl": fastdl.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        **dict(line.split(": ", 1) for line in fastdl.show_config().splitlines()),
    }


def _model_facts(path: str) -> dict[str, Any]:
    trained = load_model(path)
    hidden = ("fingerprint", "features")
    data = {name: value for name, value in trained.data.items() if name not in hidden}
    return {
        "model": path,
        "sizes": trained.config["sizes"],
        "norm": trained.config["norm"],
        "dropout": trained.config["dropout"],
        "parameters": trained.parameters,
        "data": data,
        "settings": trained.settings,
        "epochs": 0 if trained.run is None else trained.run["epoch"],
        "results": trained.results,
    }


def _plain_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return "none" if value is None else str(value)


def _score_line(part: str, result: dict[str, float]) -> str:
    name = "accuracy" if "accuracy" in result else "r2"
    return f"{part}{name} {result[name]:.3f}"


def _print_json(value: Any) -> None:
    print(json.dumps(value))


def _say(quiet: bool, text: str) -> None:
    if not quiet:
        print(text, flush=True)
