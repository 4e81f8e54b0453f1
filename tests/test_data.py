"""Data sets: every source gives the same kind of thing, every defect one sentence."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from fastdl.train import Scaler, load_data
from fastdl.train.data import split_rows
from fastdl.train.read_arrays import read_idx
from fastdl.train.read_csv import Schema
from subprocesses import python


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def rows_of(table: str) -> list[list[str]]:
    return [line.split(",") for line in table.split()]


@pytest.mark.parametrize(
    ("name", "shape", "task", "outputs"),
    [
        ("digits", (1797, 64), "classification", 10),
        ("breast_cancer", (569, 30), "classification", 2),
        ("wine", (178, 13), "classification", 3),
        ("iris", (150, 4), "classification", 3),
        ("diabetes", (442, 10), "regression", 1),
    ],
)
def test_bundled(name, shape, task, outputs):
    data = load_data(name)
    assert (data.X.shape, data.task, data.outputs) == (shape, task, outputs)
    part = data.split(0.25, seed=1)
    assert part.X_train.dtype == np.float32 and len(part.X_train) + len(part.X_test) == len(data)
    if task == "regression":
        assert part.y_train.dtype == np.float32 and part.y_train.shape[1] == 1
        np.testing.assert_allclose(
            part.y_scaler.undo(part.y_train), data.y[part.rows_train], rtol=1e-6
        )
    else:
        assert part.y_train.dtype == np.int64 and part.y_scaler is None
        shares = [np.bincount(y) / len(y) for y in (part.y_train, part.y_test)]
        np.testing.assert_allclose(*shares, atol=0.03)


def test_the_test_rows_take_no_part_in_the_scaling():
    data = load_data("iris")
    part = data.split(0.5, seed=3)
    assert not set(part.rows_train) & set(part.rows_test)
    np.testing.assert_allclose(part.X_train.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(part.X_train.std(axis=0), 1, atol=1e-5)
    assert (np.abs(part.X_test.mean(axis=0)) > 1e-3).any()
    np.testing.assert_allclose(part.X_scaler.undo(part.X_test), data.X[part.rows_test], rtol=1e-5)


def test_split_is_fixed_for_ever():
    """These rows must never change: model files name them by seed alone."""
    first, second = split_rows(12, None, 0.25, seed=7)
    assert second.tolist() == [1, 4, 8] and sorted([*first, *second]) == list(range(12))
    again = split_rows(12, None, 0.25, seed=7)[1]
    other = split_rows(12, None, 0.25, seed=8)[1]
    assert again.tolist() == second.tolist() != other.tolist()


def test_split_stratified():
    labels = np.repeat([0, 1, 2], [40, 20, 4])
    for seed in range(5):
        assert np.bincount(labels[split_rows(64, labels, 0.25, seed)[1]]).tolist() == [10, 5, 1]


@pytest.mark.parametrize(("rows", "fraction"), [(10, 0.0), (10, 1.0), (10, float("nan")), (1, 0.5)])
def test_split_without_rows(rows, fraction):
    with pytest.raises(ValueError, match="split: "):
        split_rows(rows, None, fraction, 0)


def test_scaler():
    rng = np.random.default_rng(0)
    X = np.stack([1e9 + rng.normal(size=50), np.full(50, 0.1), rng.normal(5, 1e-6, 50)], axis=1)
    scaled = Scaler.fit(X).apply(X)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=0), [1, 0, 1], atol=1e-5)
    scaler = Scaler.fit(X[:, 2:] * 1e6, same_unit=True)
    np.testing.assert_allclose(scaler.undo(scaler.apply(X[:, 2:] * 1e6)), X[:, 2:] * 1e6)
    pixels = Scaler.fit(np.array([[0, 0], [0, 200]], np.uint8), same_unit=True)
    assert pixels.scale[0] == pixels.scale[1] > 50


CSV = "a,b,kind\n1,2,x\n3,4.5,y\n5,6,x\n"


def test_csv_with_header(tmp_path):
    data = load_data(write(tmp_path / "d.csv", CSV))
    assert (data.task, data.labels, data.features, data.target) == (
        "classification",
        ["x", "y"],
        ["a", "b"],
        "kind",
    )
    assert data.X.tolist() == [[1, 2], [3, 4.5], [5, 6]] and data.y.tolist() == [0, 1, 0]


@pytest.mark.parametrize("target", ["b", "1", 1, -2])
def test_csv_target(tmp_path, target):
    text = "a,b,c\n1,0.5,7\n2,1.5,8\n"
    data = load_data(write(tmp_path / "d.csv", text), target=target)
    assert data.task == "regression" and data.y.tolist() == [[0.5], [1.5]]
    assert data.X.tolist() == [[1, 7], [2, 8]] and data.features == ["a", "c"]


@pytest.mark.parametrize(
    "text",
    [
        "1,2,x\n3,4.5,y\n5,6,x\n",
        "\ufeff1;2;x\r\n3;4.5;y\r\n\r\n5;6;x",
        '"1"\t2\t"x"\n3\t4.5\ty\n5\t6\tx\n',
    ],
)
def test_csv_without_header(tmp_path, text):
    data = load_data(write(tmp_path / "d.CSV", text))
    assert data.X.tolist() == [[1, 2], [3, 4.5], [5, 6]] and data.labels == ["x", "y"]
    assert data.features is None and data.target == 2


@pytest.mark.parametrize(
    ("targets", "task"),
    [
        ("0 1 0 1 1 0 0 1", "classification"),
        ("0.0 1.0 0 1 1 0 0 1", "classification"),
        ("1.5 2.5 1.5 2 2 2 2 2", "regression"),
        ("1 2 3 4 5 6 7 8", "regression"),
        ("no yes no yes no yes no no", "classification"),
    ],
)
def test_task_is_found_out(tmp_path, targets, task):
    text = "".join(f"1,{value}\n" for value in targets.split())
    assert load_data(write(tmp_path / "d.csv", text), header=False).task == task


def test_task_can_be_set(tmp_path):
    path = write(tmp_path / "d.csv", "1,0\n2,1\n3,0\n4,1\n")
    assert load_data(path, task="regression").y.tolist() == [[0], [1], [0], [1]]
    path = write(tmp_path / "e.csv", "1,10\n2,9\n3,100\n4,9.5\n")
    assert load_data(path, task="classification").labels == ["9", "9.5", "10", "100"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, r"must have rows, got an empty file"),
        ("a,b\n", {}, r"must have rows below its header"),
        ("a,b,y\n1,2,0\n3,4\n", {}, r"d.csv line 3 must have 3 cells .* got 2"),
        ("a,b,y\n1,2,0\n\n3,oops,1\n", {}, r"d.csv line 4: column 'b' must be a finite .*'oops'"),
        ("1,2,0\n3,,1\n", {}, r"d.csv line 2: column 1 must be .* got an empty cell"),
        ("a,y\n1,0\nnan,1\n", {}, r"line 3: column 'a' must be a finite number, got 'nan'"),
        ("a,y\n1,0\n2,inf\n", {}, r"line 3: column 'y' must be a finite number, got 'inf'"),
        ("a,y\n1,u\n2,\n", {}, r"line 3: the target must have a value, got an empty cell"),
        ("a,y\n1,2\n", {"target": "z"}, r"target of .* must be one of \['a', 'y'\], got 'z'"),
        ("1,2\n3,4\n", {"target": "z"}, r"must be a position \(the file has no header\), got 'z'"),
        ("1,2\n3,4\n", {"target": 2}, r"must be a name or a position in 0..1, got 2"),
        ("1\n2\n", {}, r"must have a feature and a target column, got one column"),
        ('1,"2\n3,4\n', {}, r"must be a CSV file in UTF-8, got .* near line"),
        ("a,y\n1,u\n2,u\n", {}, r"must have at least two classes, got \['u'\]"),
        ("a,y\n1,u\n2,v\n", {"task": "regression"}, r"must be numbers for regression, got 'u'"),
    ],
)
def test_csv_defects(tmp_path, text, options, message):
    with pytest.raises(ValueError, match=message):
        load_data(write(tmp_path / "d.csv", text), **options)


def test_csv_that_is_no_text(tmp_path):
    (tmp_path / "d.csv").write_bytes(b"a,b\n1,\xff\xfe\n")
    with pytest.raises(ValueError, match="must be a CSV file in UTF-8"):
        load_data(tmp_path / "d.csv")


def test_csv_for_a_trained_model(tmp_path):
    """Columns are found by name in any order; the target may be missing."""
    schema, labels = Schema(2, ["a", "b"], "kind"), ["x", "y"]

    def load(text: str, **options: str):
        path = write(tmp_path / "d.csv", text)
        return load_data(path, task="classification", schema=schema, labels=labels, **options)

    for text in ("b,extra,a\n2,0,1\n", "1,2\n", "a,b\n1,2\n"):
        data = load(text)
        assert data.X.tolist() == [[1, 2]] and data.y is None and data.labels == labels
    for text in ("kind,b,a\ny,2,1\n", "1,2,y\n"):
        assert load(text).y.tolist() == [1]
    assert load("a,b,sort\n1,2,y\n", target="sort").y.tolist() == [1]
    for text, message in [
        ("a,c\n1,2\n", "got none named 'b'"),
        ("1,2,3,x\n", "the model's 2 feature columns and at most one target"),
        ("a,b,kind\n1,2,z\n", r"one of the model's classes \['x', 'y'\], got 'z'"),
    ]:
        with pytest.raises(ValueError, match=message):
            load(text)


def test_npz(tmp_path):
    X, y = np.arange(12, dtype=np.float32).reshape(6, 2), np.array([0, 1, 0, 1, 0, 1])
    np.savez(tmp_path / "a.npz", X=X, y=y)
    data = load_data(tmp_path / "a.npz")
    assert data.X.tolist() == X.tolist() and data.y.tolist() == y.tolist() and not data.same_unit
    images = np.arange(24, dtype=np.uint8).reshape(6, 2, 2)
    np.savez_compressed(
        tmp_path / "b.npz", x_train=images[:4], y_train=y[:4], x_test=images[4:], y_test=y[4:]
    )
    data = load_data(tmp_path / "b.npz")
    assert data.X.shape == (6, 4) and data.X.dtype == np.uint8 and data.same_unit
    assert [rows.tolist() for rows in data.split_rows()] == [[0, 1, 2, 3], [4, 5]]
    np.savez(tmp_path / "c.npz", data=X, target=np.array(["u", "v"] * 3))
    assert load_data(tmp_path / "c.npz").labels == ["u", "v"]
    np.savez(tmp_path / "d.npz", X=X, y=X * 0.5)
    assert load_data(tmp_path / "d.npz").outputs == 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"A": np.ones(3)}, r"must have arrays named X and y, .* got \['a'\]"),
        ({"X": np.ones((3, 2))}, r"must have a target"),
        ({"X": np.ones((3, 2)), "y": np.ones(2)}, r"equally long, got 3 and 2"),
        ({"X": np.ones((0, 2)), "y": np.ones(0)}, r"must have rows and columns"),
        ({"X": np.array([["u"]]), "y": np.ones(1)}, r"X of .* must be rows of numbers"),
        ({"X": np.full((2, 2), np.nan), "y": np.ones(2)}, r"X of .* must be finite, .* row 1"),
        ({"X": np.ones((2, 1)), "y": np.array([1, np.inf])}, r"y of .* must be finite, .* row 2"),
        ({"X": np.array([{}], object), "y": np.ones(1)}, r"undamaged .npz file of plain arrays"),
        (
            {
                "x_train": np.ones((2, 3)),
                "y_train": [0, 1],
                "x_test": np.ones((2, 4)),
                "y_test": [0, 1],
            },
            r"must agree in all but the first",
        ),
    ],
)
def test_npz_defects(tmp_path, arrays, message):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_data(tmp_path / "d.npz")


def test_npz_damaged(tmp_path):
    path = tmp_path / "d.npz"
    np.savez_compressed(path, X=np.random.default_rng(0).normal(size=(50, 3)), y=np.arange(50) % 2)
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[:100], whole[:-30], whole[:200] + b"\xff" * 9 + whole[209:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="undamaged"):
            load_data(path)
    np.save(tmp_path / "array.npy", np.ones(3))
    (tmp_path / "array.npy").rename(path)
    with pytest.raises(ValueError, match="undamaged"):
        load_data(path)


def idx(array: np.ndarray, code: int = 8) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


def idx_folder(folder: Path, zipped: bool, test: str | None = "t10k") -> Path:
    images = np.arange(5 * 6, dtype=np.uint8).reshape(5, 2, 3)
    labels = np.array([3, 1, 3, 1, 1], np.uint8)
    folder.mkdir()
    for prefix, rows in [("train", slice(0, 3)), (test, slice(3, 5))]:
        if prefix is not None:
            for name, array in (("images-idx3", images), ("labels-idx1", labels)):
                content = idx(array[rows])
                path = folder / f"{prefix}-{name}-ubyte{'.gz' if zipped else ''}"
                path.write_bytes(gzip.compress(content) if zipped else content)
    return folder


@pytest.mark.parametrize("zipped", [False, True])
def test_idx(tmp_path, zipped):
    data = load_data(idx_folder(tmp_path / "mnist", zipped))
    assert data.X.tolist() == np.arange(30).reshape(5, 6).tolist() and data.X.dtype == np.uint8
    assert data.labels == ["1", "3"] and data.y.tolist() == [1, 0, 1, 0, 0]
    assert [rows.tolist() for rows in data.split_rows(0.5, 3)] == [[0, 1, 2], [3, 4]]
    alone = load_data(idx_folder(tmp_path / "train-only", zipped, test=None))
    assert len(alone) == 3 and alone.test_start is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be an undamaged IDX file"),
        (b"\x00\x00\x08", "must be an undamaged IDX file"),
        (b"\x00\x01\x08\x01\x00\x00\x00\x01x", "another magic number"),
        (b"\x00\x00\x07\x01\x00\x00\x00\x01x", "another magic number"),
        (struct.pack(">HBB2I", 0, 8, 2, 2, 3) + b"12345", "less data than its header says"),
        (struct.pack(">HBB2I", 0, 8, 2, 2, 3) + b"1234567", "more data than its header says"),
        (struct.pack(">HBB4I", 0, 14, 4, *[2**32 - 1] * 4), "must be an undamaged IDX file"),
    ],
)
def test_idx_defects(tmp_path, content, message):
    for path, stored in [(tmp_path / "f", content), (tmp_path / "f.gz", gzip.compress(content))]:
        path.write_bytes(stored)
        with pytest.raises(ValueError, match=message):
            read_idx(path)


def test_idx_folder_defects(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="must hold IDX files such as train-images"):
        load_data(tmp_path / "empty")
    folder = idx_folder(tmp_path / "short", zipped=False)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(2, np.uint8)))
    with pytest.raises(ValueError, match="must hold 3 integer labels"):
        load_data(folder)
    folder = idx_folder(tmp_path / "cut", zipped=True)
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="must be an undamaged IDX file"):
        load_data(folder)


@pytest.mark.parametrize(
    ("spec", "options", "error", "message"),
    [
        (
            "nothing",
            {},
            FileNotFoundError,
            "must be one of digits, .* got 'nothing', which does not",
        ),
        ("d.txt", {}, ValueError, "must end in .csv or .npz"),
        ("iris", {"task": "ranking"}, ValueError, "task must be 'classification' or 'regression'"),
        ("iris", {"target": "x"}, ValueError, "target and header are for .csv files"),
    ],
)
def test_what_is_no_data(tmp_path, monkeypatch, spec, options, error, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "d.txt", "1,2\n")
    with pytest.raises(error, match=message):
        load_data(spec, **options)


def test_fingerprint_tells_data_apart(tmp_path):
    one = load_data(write(tmp_path / "d.csv", CSV))
    two = load_data(write(tmp_path / "e.csv", CSV.replace("4.5", "4")))
    assert one.fingerprint() == load_data(tmp_path / "d.csv").fingerprint() != two.fingerprint()


def test_without_scikit_learn():
    done = python(
        """
        import sys
        sys.modules["sklearn"] = sys.modules["sklearn.datasets"] = None
        from fastdl.train import load_data
        try:
            load_data("iris")
        except ImportError as error:
            print(error)
        """
    )
    assert "'iris' needs scikit-learn" in done.stdout
    assert 'pip install "fastdl[train]"' in done.stdout
