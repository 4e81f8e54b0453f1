"""The command ``fastdl``, as a user runs it: in a process of its own."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import fastdl
import numpy as np
import pytest
from fastdl.cli import main

QUICK = ["--hidden", "16", "--epochs", "8", "--lr", "0.01", "--batch-size", "64"]


def run(*arguments: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "fastdl", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def call(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """Run in this process, which is quicker; return what went to stdout."""
    capsys.readouterr()
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert code or not captured.err, captured.err
    return captured.out


def call_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    return json.loads(call(capsys, *arguments, "--json"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("trained")
    return folder, run("train", "digits", *QUICK, cwd=folder)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# The way of a newcomer


def test_train_ends_with_the_accuracy_and_leaves_two_files(trained):
    folder, done = trained
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"test accuracy 0\.9\d\d", last)
    assert sorted(os.listdir(folder)) == ["curves.png", "model.safetensors"]
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "1797 rows, 64 features, 10 classes; 1347 to train, 450 held out" in done.stdout
    assert "epoch 8/8: 100%" in done.stderr


def test_eval_and_predict_in_a_new_process_give_the_same_bits(trained, tmp_path, capsys):
    folder, done = trained
    model = str(folder / "model.safetensors")
    assert call(capsys, "eval", model) == done.stdout.splitlines()[-1] + "\n"
    stored = call_json(capsys, "info", model)["results"]["accuracy"]
    evaluated = json.loads(run("eval", model, "--json", cwd=tmp_path).stdout)
    assert evaluated["accuracy"] == stored and evaluated["rows"] == 450
    assert evaluated["as_in_training"] is True
    run("predict", model, "digits", "--out", "preds.csv", "--proba", cwd=tmp_path)
    with (tmp_path / "preds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    test = [row for row in rows if row["part"] == "test"]
    assert len(rows) == 1797 and len(test) == 450
    assert np.mean([row["prediction"] == row["target"] for row in test]) == stored
    assert all(abs(sum(float(row[f"p_{k}"]) for k in range(10)) - 1) < 1e-9 for row in rows)
    assert all(
        row["prediction"] == max("0123456789", key=lambda k: float(row[f"p_{k}"])) for row in rows
    )


def test_eval_chooses_rows_by_what_the_data_are(trained, here, capsys):
    model = str(trained[0] / "model.safetensors")
    test = call_json(capsys, "eval", model)
    assert call_json(capsys, "eval", model, "--data", "digits") == test
    train = call_json(capsys, "eval", model, "--part", "train")
    everything = call_json(capsys, "eval", model, "--part", "all")
    assert (train["rows"], everything["rows"]) == (1347, 1797)
    hits = test["accuracy"] * 450 + train["accuracy"] * 1347
    assert everything["accuracy"] * 1797 == pytest.approx(hits)
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    np.savez(here / "some.npz", X=X[:100], y=y[:100])
    assert call(capsys, "eval", model, "--data", "some.npz").startswith("accuracy ")
    assert call_json(capsys, "eval", model, "--data", "some.npz")["part"] == "all"


def test_same_seed_same_file(here, capsys):
    for name in ("a", "b", "c"):
        seed = "4" if name == "c" else "3"
        call(
            capsys,
            "train",
            "iris",
            *QUICK,
            "--quiet",
            "--seed",
            seed,
            "--out",
            name,
            "--plot",
            "none",
        )
    files = contents(here)
    assert files["a"] == files["b"] != files["c"]


def test_json_is_one_object_and_says_all(here, capsys):
    out = call_json(capsys, "train", "wine", *QUICK, "--quiet")
    assert 0.9 <= out["test_accuracy"] <= 1 and out["epochs"] == 8 and out["sizes"] == [13, 16, 3]
    assert len(out["history"]["loss"]) == 8 and out["stopped"] == "epochs"
    assert (
        call_json(capsys, "info", "model.safetensors")["results"]["accuracy"]
        == out["test_accuracy"]
    )
    assert call_json(capsys, "eval", "model.safetensors")["accuracy"] == out["test_accuracy"]
    predicted = call_json(capsys, "predict", "model.safetensors", "wine")
    assert predicted["test_accuracy"] == out["test_accuracy"]
    assert len(predicted["columns"]["prediction"]) == 178
    about = call_json(capsys, "info")
    assert about["fastdl"] == fastdl.__version__ and about["backend"] in fastdl.backends()


def test_options_reach_the_model(here, capsys):
    out = call_json(
        capsys, "train", "breast_cancer", "--hidden", "20,10", "--epochs", "60", "--norm", "batch",
        "--dropout", "0.1", "--patience", "3", "--optimizer", "sgd", "--lr", "0.05", "--quiet",
        "--weight-decay", "0.001", "--schedule", "constant", "--plot", "none", "--out", "m",
    )  # fmt: skip
    assert out["stopped"] == "patience" and out["best_epoch"] == out["epochs"] - 3
    assert out["test_accuracy"] > 0.9 and out["sizes"] == [30, 20, 10, 2]
    assert out["settings"]["optimizer"] == "sgd" and out["settings"]["norm"] == "batch"
    assert call_json(capsys, "eval", "m")["accuracy"] == out["test_accuracy"]
    assert os.listdir(here) == ["m"]


# CSV, regression


def write_csv(path: Path, rows: int = 80, target: bool = True) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(100, 5, (rows, 2))
    y = 1000 + 3 * X[:, 0] - 2 * X[:, 1] + rng.normal(0, 0.1, rows)
    names, columns = ["u", "v"], [X[:, 0], X[:, 1]]
    if target:
        names, columns = ["u", "price", "v"], [X[:, 0], y, X[:, 1]]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(zip(*columns, strict=True))


def test_regression_from_csv(here, capsys):
    write_csv(here / "d.csv")
    options = [
        "--target",
        "price",
        "--hidden",
        "none",
        "--epochs",
        "100",
        "--lr",
        "0.05",
        "--quiet",
    ]
    out = call(capsys, "train", "d.csv", *options)
    assert re.fullmatch(r"test r2 0\.9\d\d\n|test r2 1\.000\n", out)
    assert call(capsys, "eval", "model.safetensors") == out
    write_csv(here / "new.csv", rows=5, target=False)
    text = call(capsys, "predict", "model.safetensors", "new.csv")
    predicted = [float(row["prediction"]) for row in csv.DictReader(text.splitlines())]
    assert len(predicted) == 5 and all(900 < value < 1300 for value in predicted)
    (here / "d.csv").unlink()
    assert main(["eval", "model.safetensors"]) == 2
    assert "'d.csv') are not here; name a file with the option --data" in capsys.readouterr().err


def test_class_names_from_csv(here, capsys):
    rng = np.random.default_rng(0)
    rows = [
        (rng.normal(3 * k), rng.normal(), name)
        for k, name in enumerate(["cat", "dog"] * 1)
        for _ in range(40)
    ]
    (here / "pets.csv").write_text("".join(f"{a},{b},{name}\n" for a, b, name in rows))
    call(capsys, "train", "pets.csv", *QUICK, "--quiet")
    text = call(capsys, "predict", "model.safetensors", "pets.csv")
    answers = [row["prediction"] for row in csv.DictReader(text.splitlines())]
    assert set(answers) == {"cat", "dog"}
    (here / "pets.csv").write_text("1,2,cat\n3,4,cow\n")
    assert main(["eval", "model.safetensors", "--data", "pets.csv"]) == 2
    assert "must be one of the model's classes ['cat', 'dog'], got 'cow'" in capsys.readouterr().err


def test_eval_refuses_changed_data(here, capsys):
    write_csv(here / "d.csv")
    call(capsys, "train", "d.csv", "--target", "price", *QUICK, "--quiet")
    write_csv(here / "d.csv", rows=81)
    assert main(["eval", "model.safetensors"]) == 2
    assert "must be the data the model was trained on, got other rows" in capsys.readouterr().err
    assert call_json(capsys, "eval", "model.safetensors", "--data", "d.csv")["rows"] == 81


# Interrupted, killed, resumed


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-m", "fastdl", "train", "digits", "--epochs", "100000", *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    seen = ""
    while not re.search(r"epoch ([3-9]|\d\d+)/", seen):
        assert child.poll() is None and child.stderr is not None, seen
        seen += child.stderr.read(50)
    return child


def test_ctrl_c_saves_what_is_there(tmp_path, capsys):
    child = start(tmp_path, "--hidden", "8")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=300)
    assert child.returncode == 130 and "Traceback" not in err
    assert "fit: interrupted by Ctrl-C after" in err
    assert sorted(os.listdir(tmp_path)) == ["curves.png", "model.safetensors"]
    again = call(capsys, "eval", str(tmp_path / "model.safetensors"))
    assert again == out.splitlines()[-1] + "\n"


def test_kill_9_leaves_a_checkpoint_that_loads(here, capsys):
    child = start(here, "--hidden", "8", "--checkpoint", "c")
    child.kill()
    child.communicate(timeout=300)
    assert call(capsys, "eval", "c").startswith("test accuracy 0.")
    resumed = ["train", "digits", "--resume", "c", "--epochs", "1", "--quiet", "--plot", "none"]
    assert call_json(capsys, *resumed)["epochs"] >= 2


@pytest.mark.parametrize("patience", ["0", "5"])
def test_resumed_run_is_the_uninterrupted_one(here, capsys, patience):
    options = [
        *QUICK,
        "--dropout",
        "0.1",
        "--patience",
        patience,
        "--schedule",
        "constant",
        "--quiet",
    ]
    whole = call(capsys, "train", "iris", *options, "--out", "whole", "--plot", "none")
    call(capsys, "train", "iris", *options, "--epochs", "3", "--out", "part", "--plot", "none")
    resumed = ["train", "iris", "--resume", "part", "--epochs", "8", "--quiet", "--plot", "none"]
    assert call(capsys, *resumed, "--out", "part") == whole
    files = contents(here)
    assert files["part"] == files["whole"]


def test_resume_must_fit(here, capsys):
    call(capsys, "train", "iris", *QUICK, "--quiet")
    before = contents(here)
    for arguments, message in [
        (["iris", "--lr", "0.5"], "--lr must be 0.01 as in the run to resume, got 0.5"),
        (["iris", "--hidden", "8"], "--hidden must be (16,) as in the run to resume, got (8,)"),
        (["digits"], "must have the model's 4 feature columns, got 64"),
    ]:
        assert main(["train", *arguments, "--resume", "model.safetensors"]) == 2
        assert message in capsys.readouterr().err
    assert contents(here) == before


def test_info_in_words(here, capsys):
    call(capsys, "train", "iris", "--epochs", "2", "--hidden", "4", "--quiet", "--out", "good")
    text = call(capsys, "info", "good")
    assert re.search(r"^sizes +4 4 3$", text, re.MULTILINE)
    assert re.search(r"^parameters +35$", text, re.MULTILINE)
    assert "spec iris" in text and "labels setosa versicolor virginica" in text
    assert re.search(
        rf"^fastdl +{re.escape(fastdl.__version__)}$", call(capsys, "info"), re.MULTILINE
    )
    assert call(capsys, "--version").strip() == fastdl.__version__
