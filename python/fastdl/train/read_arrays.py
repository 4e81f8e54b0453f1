"""Reading data sets that are arrays already: scikit-learn's, ``.npz``, and IDX folders."""

from __future__ import annotations

import gzip
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastdl._extras import need
from fastdl.train.table import Array, Table

BUNDLED = ("digits", "breast_cancer", "wine", "iris", "diabetes")

_NPZ_PAIRS = [("x", "y"), ("x_train", "y_train"), ("data", "target"), ("images", "labels")]
_IDX_DTYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_DAMAGE: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, TypeError, KeyError)
_DAMAGE += (AttributeError, OverflowError, MemoryError, NotImplementedError)
_DAMAGE += (zipfile.BadZipFile, zlib.error, struct.error)


def read_bundled(name: str) -> Table:
    """Read one of scikit-learn's small data sets (no download)."""
    datasets = need("sklearn.datasets", f"load_data: the data set {name!r}")
    bunch = getattr(datasets, f"load_{name}")()
    features = [str(feature) for feature in bunch.feature_names]
    labels = [str(label) for label in bunch.get("target_names", [])] or None
    X = np.asarray(bunch.data, dtype=np.float64)
    return Table(X, np.asarray(bunch.target), features, None, labels, same_unit=name == "digits")


def read_npz(path: Path) -> Table:
    """Read an ``.npz`` file with arrays ``X, y`` (or ``x_train, y_train, x_test, y_test``).

    Names match in any case; ``data, target`` and ``images, labels`` work too, and ``y`` may be
    absent. Arrays of more than two dimensions are flattened by row. Nothing is unpickled.
    """
    try:
        with path.open("rb") as opened:
            if not zipfile.is_zipfile(opened):
                raise ValueError("something else than a zip archive")
            with np.load(opened, allow_pickle=False) as file:
                arrays = {name.lower(): file[name] for name in file.files}
    except _DAMAGE as error:
        raise ValueError(
            f"load_data: {path} must be an undamaged .npz file of plain arrays, got"
            f" {' '.join(str(error).split()) or type(error).__name__}"
        ) from error
    for x_name, y_name in _NPZ_PAIRS:
        if x_name in arrays:
            return _npz_table(path, arrays, x_name, y_name)
    raise ValueError(
        f"load_data: {path} must have arrays named X and y, or x_train and y_train,"
        f" got {sorted(arrays)}"
    )


def _npz_table(path: Path, arrays: Mapping[str, Array], x_name: str, y_name: str) -> Table:
    X, values = arrays[x_name], arrays.get(y_name)
    test_start = None
    if x_name == "x_train" and {"x_test", "y_test"} <= arrays.keys() and values is not None:
        _check_parts(path, arrays)
        test_start = len(X)
        X = np.concatenate([X, arrays["x_test"]])
        values = np.concatenate([values, arrays["y_test"]])
    pixels = X.dtype == np.uint8 or X.ndim > 2
    return Table(_matrix(X, path), _target(values, path), None, None, None, pixels, test_start)


def _check_parts(path: Path, arrays: Mapping[str, Array]) -> None:
    for name in ("x", "y"):
        train, test = arrays[f"{name}_train"], arrays[f"{name}_test"]
        if train.ndim == 0 or train.shape[1:] != test.shape[1:]:
            raise ValueError(
                f"load_data: {name}_train and {name}_test of {path} must agree in all but the"
                f" first dimension, got {train.shape} and {test.shape}"
            )
    if len(arrays["x_train"]) != len(arrays["y_train"]):
        raise ValueError(
            f"load_data: x_train and y_train of {path} must be equally long,"
            f" got {len(arrays['x_train'])} and {len(arrays['y_train'])}"
        )


def _matrix(X: Array, source: Path) -> Array:
    """Return rows as float64, or uint8 left as it is."""
    if X.dtype.kind not in "fiub" or X.ndim == 0:
        raise ValueError(
            f"load_data: X of {source} must be rows of numbers, got {X.dtype} of shape {X.shape}"
        )
    columns = math.prod(X.shape[1:])
    X = X.reshape(len(X), columns)
    return X if X.dtype == np.uint8 else X.astype(np.float64)


def _target(values: Array | None, source: Path) -> Array | None:
    if values is None:
        return None
    if values.dtype.kind not in "fiubU" or values.ndim not in (1, 2):
        raise ValueError(
            f"load_data: y of {source} must be numbers or strings of shape (N,) or (N, k),"
            f" got {values.dtype} of shape {values.shape}"
        )
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    return values.astype(np.int64) if values.dtype.kind in "iub" else values


def read_idx_folder(folder: Path) -> Table:
    """Read a folder of MNIST-style IDX files, plain or ``.gz``.

    Wanted are ``train-images*`` and ``train-labels*``, and for the test part ``t10k-`` or
    ``test-``. A folder with the test pair alone, or with images alone, works for prediction.
    Source of the format: http://yann.lecun.com/exdb/mnist
    """
    parts = [_idx_pair(folder, prefix) for prefix in ("train", "t10k|test")]
    found = [part for part in parts if part is not None]
    if not found:
        names = sorted(file.name for file in folder.iterdir())[:8]
        raise ValueError(
            f"load_data: {folder} must hold IDX files such as train-images-idx3-ubyte and"
            f" train-labels-idx1-ubyte (or .gz), got {names}"
        )
    if len(found) == 1:
        return Table(found[0][0], found[0][1], same_unit=True)
    (X, y), (X_test, y_test) = found
    if y is None or y_test is None or X.shape[1] != X_test.shape[1]:
        raise ValueError(
            f"load_data: train and test images of {folder} must have labels and equal sizes"
        )
    both = np.concatenate([y, y_test])
    return Table(np.concatenate([X, X_test]), both, same_unit=True, test_start=len(X))


def _idx_pair(folder: Path, prefix: str) -> tuple[Array, Array | None] | None:
    images = _find(folder, prefix, "images")
    labels = _find(folder, prefix, "labels")
    if images is None:
        return None
    X = read_idx(images)
    if X.ndim < 2:
        raise ValueError(f"load_data: {images} must hold images, got shape {X.shape}")
    if labels is None:
        return _matrix(X, images), None
    y = read_idx(labels)
    if y.shape != X.shape[:1] or y.dtype.kind not in "iu":
        raise ValueError(
            f"load_data: {labels} must hold {len(X)} integer labels (as {images.name} holds"
            f" images), got {y.dtype} of shape {y.shape}"
        )
    return _matrix(X, images), y.astype(np.int64)


def _find(folder: Path, prefix: str, kind: str) -> Path | None:
    pattern = re.compile(rf"({prefix})[-_.]?{kind}.*", re.IGNORECASE)
    files = sorted(file for file in folder.iterdir() if pattern.fullmatch(file.name))
    return files[0] if files else None


def read_idx(path: Path) -> Array:
    """Read one IDX file, plain or gzip; ValueError unless every byte is accounted for."""
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            array = _parse_idx(file)
    except _DAMAGE as error:
        raise ValueError(
            f"load_data: {path} must be an undamaged IDX file, got"
            f" {' '.join(str(error).split()) or type(error).__name__}"
        ) from error
    return array


def _parse_idx(file: Any) -> Array:
    zero, code, rank = struct.unpack(">HBB", file.read(4))
    if zero != 0 or code not in _IDX_DTYPES or not 1 <= rank <= 4:
        raise ValueError("another magic number")
    shape = struct.unpack(f">{rank}I", file.read(4 * rank))
    dtype = np.dtype(_IDX_DTYPES[code])
    size = math.prod(shape) * dtype.itemsize
    content = file.read(size + 1)
    if len(content) != size:
        raise ValueError(f"{'less' if len(content) < size else 'more'} data than its header says")
    array: Array = np.frombuffer(content, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="))
