"""What users of the command do wrong: one sentence, exit code 2, nothing changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fastdl
import numpy as np
import pytest
from fastdl.cli import main


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "a command must be one of train, eval, predict, info, got none"),
        ("fly", "invalid choice: 'fly'"),
        ("train", "the following arguments are required: DATA"),
        ("train nothing", "data must be one of digits, breast_cancer, wine, iris, diabetes"),
        ("train iris --hidden 8,x", "argument --hidden: must be a whole number >= 1, got 'x'"),
        ("train iris --epochs 0", "argument --epochs: must be a whole number >= 1, got '0'"),
        ("train iris --lr -1", "argument --lr: must be a number > 0, got '-1'"),
        ("train iris --lr nan", "argument --lr: must be a number > 0, got 'nan'"),
        ("train iris --dropout 1", "argument --dropout: must be a number >= 0 and < 1, got '1'"),
        ("train iris --test-fraction 1", "must be a number > 0 and < 1, got '1'"),
        ("train iris --test-fraction 0.001", "split: both parts must have rows"),
        ("train iris --seed -1", "argument --seed: must be a whole number >= 0"),
        ("train iris --optimizer lion", "invalid choice: 'lion'"),
        ("train iris --task ranking", "invalid choice: 'ranking'"),
        ("train iris --target 3", "target and header are for .csv files"),
        ("train iris --colour red", "unrecognized arguments: --colour red"),
        ("train iris --out nowhere/m", "the folder of 'nowhere/m' must exist"),
        ("train iris --plot c.bmp", "path must end in .png, .svg or .pdf, got 'c.bmp'"),
        ("train iris --resume none", "path must be an existing file, got 'none'"),
        ("train iris --lr 1e30 --epochs 5 --quiet", "the loss must stay finite"),
        ("train bad.csv", "bad.csv line 2: column 0 must be a finite number, got 'x'"),
        ("eval none", "path must be an existing file, got 'none'"),
        ("eval bad.csv", "must be a whole safetensors file, got a damaged or foreign one"),
        ("eval other", "must be a model file (fastdl.model version 1), got kind None"),
        ("eval cut", "must be a whole safetensors file"),
        ("eval good --data digits", "must have the model's 4 feature columns, got 64"),
        ("eval two --data bad.csv", "bad.csv line 2: column 0 must be a finite number"),
        ("predict good", "the following arguments are required: DATA"),
        ("predict good iris --out nowhere/p", "the folder of 'nowhere/p' must exist"),
        ("predict line diabetes --proba", "--proba must go with a classifier"),
        ("info cut", "must be a whole safetensors file"),
    ],
)
def test_errors(models, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(models)
    before = contents(models)
    try:
        code = main(arguments.split())
    except SystemExit as error:
        code = error.code
    captured = capsys.readouterr()
    assert code == 2 and captured.out == "" and message in captured.err
    assert len(captured.err.splitlines()) == 1 and captured.err.startswith("fastdl")
    assert contents(models) == before


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with good files and bad ones; the file in the way of each error stays as it is."""
    folder = tmp_path_factory.mktemp("models")
    quiet = ["--quiet", "--epochs", "2", "--hidden", "4", "--plot", "none"]
    assert main(["train", "iris", *quiet, "--out", str(folder / "good")]) == 0
    assert main(["train", "diabetes", *quiet, "--out", str(folder / "line")]) == 0
    good = (folder / "good").read_bytes()
    (folder / "cut").write_bytes(good[:-40])
    (folder / "model.safetensors").write_bytes(good)
    fastdl.save({"w": np.ones(3)}, folder / "other")
    (folder / "bad.csv").write_text("1,2,a\nx,4,b\n")
    (folder / "two.csv").write_text("1,2,a\n3,4,b\n" * 5)
    assert main(["train", str(folder / "two.csv"), *quiet, "--out", str(folder / "two")]) == 0
    return folder


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"sizes": [4, 10**9, 10**9, 3], "norm": None, "dropout": 0.0}},
        {"config": {"sizes": [4, 8, 3], "norm": None, "dropout": 0.0}},
        {"config": {"sizes": [4, 4, 3], "norm": "layer", "dropout": 0.0}},
        {"config": None},
        {"data": {}},
        {"X_scaler": {"mean": np.zeros(4), "scale": np.zeros(4)}},
        {"X_scaler": {"mean": np.zeros(9), "scale": np.ones(9)}},
        {"model": {}},
        {"version": 2},
    ],
)
def test_model_files_that_do_not_fit_themselves(models, tmp_path, capsys, change):
    fastdl.save({**fastdl.load(models / "good"), **change}, tmp_path / "m")
    assert main(["eval", str(tmp_path / "m")]) == 2
    assert "model file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("safetensors", "train iris", "fastdl train needs safetensors"),
        ("sklearn", "train iris", "load_data: the data set 'iris' needs scikit-learn"),
        ("matplotlib", "train iris", "History.plot needs matplotlib"),
        ("safetensors", "eval good", "load needs safetensors"),
    ],
)
def test_missing_extras(models, module, arguments, message):
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {module!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "from fastdl.cli import main\n"
        f"sys.exit(main({arguments.split()!r}))\n"
    )
    before = contents(models)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=models, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stdout == ""
    assert message in done.stderr and 'pip install "fastdl[train]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1 and contents(models) == before
