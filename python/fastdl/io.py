"""``save`` and ``load``: nested Python values and arrays in one safetensors file, never pickle.

Arrays become tensors of the file; everything else is JSON in its metadata (key ``fastdl``):
``{"format": 1, "sha256": ..., "tree": ...}``. In the tree, numbers, strings, None, lists and
mappings with string keys are plain JSON; the rest is an object with one ``$`` key:

======================  ==========================================
``{"$array": name}``    an array, stored under that tensor name
``{"$tuple": [...]}``   a tuple
``{"$dict": [[k,v]]}``  a mapping with other keys (or ``$`` keys)
======================  ==========================================

A flat mapping of arrays gives tensor names that are its keys, so any safetensors reader can open
it, and a file written by another program loads as a flat mapping. The checksum covers structure
and data: a damaged file is an error, never a wrong weight.

Source of the format: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastdl._array import bfloat16_dtype
from fastdl._extras import MissingExtraError, need
from fastdl._files import PathLike, write_atomically

Array = npt.NDArray[Any]

_FORMAT = 1
_BEGIN = '{"format": '
_MAX_DEPTH = 100
_FLOATS = ("float64", "float32", "float16", "bfloat16")
_INTEGERS = ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")
_DTYPES = frozenset((*_FLOATS, *_INTEGERS, "bool"))


def save(mapping: Mapping[str, Any], path: PathLike) -> None:
    """Write a mapping to a safetensors file, atomically.

    Parameters
    ----------
    mapping : Mapping
        Values may be arrays (float16/32/64, bfloat16, integers, bool), Tensors, Parameters,
        numbers, strings, bool, None, and lists, tuples and mappings of those, nested at will. NumPy
        scalars are stored as Python numbers.
    path : str or PathLike
        The file. It is replaced in one step: a crash leaves the old one.

    Raises
    ------
    TypeError
        A value (or key) cannot be stored; the text names the way to it.
    ValueError
        The mapping contains itself or is nested deeper than 100 levels.
    OSError
        The file cannot be written; the old one is untouched.
    MissingExtraError
        The package safetensors is not installed.
    """
    numpy_format = need("safetensors.numpy", "save")
    if not isinstance(mapping, Mapping):
        raise TypeError(f"save: mapping must be a mapping, got {type(mapping).__name__}")
    packer = _Packer()
    tree = packer.pack(mapping, ())
    checksum = _checksum(tree, packer.arrays)
    header = json.dumps({"format": _FORMAT, "sha256": checksum, "tree": tree})
    content = numpy_format.save(packer.arrays, {"fastdl": header})
    write_atomically(path, lambda file: file.write(content), "save")


def load(path: PathLike) -> dict[str, Any]:
    """Read a safetensors file back into what `save` was given; arrays are NumPy arrays.

    Parameters
    ----------
    path : str or PathLike
        A file written by `save`, or any safetensors file (then: a flat mapping of arrays).

    Raises
    ------
    FileNotFoundError, OSError
        There is no such file, or it cannot be read.
    ValueError
        The file is not a whole, undamaged safetensors file.
    MissingExtraError
        The package safetensors is not installed, or ml_dtypes, for a file with bfloat16.
    """
    safetensors = need("safetensors", "load")
    name = os.fspath(path)
    _check_readable(name)
    try:
        metadata, arrays = _read(safetensors, name)
    except (OSError, MissingExtraError):
        raise
    except Exception as error:  # the reader raises many types for a hostile file
        raise _damaged(name, str(error)) from error
    header = metadata.get("fastdl")
    if header is not None:
        return _restore(header, arrays, name)
    if any(text.startswith(_BEGIN) for text in metadata.values()):
        raise _damaged(name, "the label of its structure is not 'fastdl'")
    return arrays


def _check_readable(name: str) -> None:
    if not os.path.exists(name):
        raise FileNotFoundError(f"load: path must be an existing file, got {name!r}")
    if not os.path.isfile(name):
        raise OSError(f"load: path must be a regular file, got {name!r}")
    with open(name, "rb"):
        pass


def _read(safetensors: Any, path: str) -> tuple[dict[str, str], dict[str, Any]]:
    with safetensors.safe_open(path, framework="np") as file:
        names = list(file.keys())
        if any(file.get_slice(name).get_dtype() == "BF16" for name in names):
            bfloat16_dtype()  # which NumPy knows from now on
        arrays = {name: file.get_tensor(name) for name in names}
        return file.metadata() or {}, arrays


def _damaged(name: str, reason: str) -> ValueError:
    reason = " ".join(reason.split())[:200]
    return ValueError(
        f"load: {name!r} must be a whole safetensors file, got a damaged or foreign one"
        f" ({reason}); use an intact copy"
    )


def _restore(header: str, arrays: dict[str, Any], name: str) -> dict[str, Any]:
    try:
        record = json.loads(header)
        if record["format"] != _FORMAT:
            raise ValueError(f"format {record['format']} is not known to this version of fastdl")
        if record["sha256"] != _checksum(record["tree"], arrays):
            raise ValueError("the checksum does not match")
        unused = dict(arrays)
        tree = _unpack(record["tree"], unused, 0)
        if unused or not isinstance(tree, dict):
            raise ValueError("structure and arrays do not match")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(name, str(error) or type(error).__name__) from error
    return tree


def _checksum(tree: Any, arrays: Mapping[str, Array]) -> str:
    """SHA-256 over the structure and, in order of name, every array's type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(tree).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, array.dtype.name, list(array.shape)]).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class _Packer:
    """Turns a nested value into a JSON tree and a flat dictionary of arrays."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}

    def pack(self, value: Any, keys: tuple[Any, ...]) -> Any:
        if len(keys) > _MAX_DEPTH:
            raise ValueError(f"save: mapping must be nested at most {_MAX_DEPTH} levels deep")
        if isinstance(value, np.generic) and value.dtype.name in _DTYPES:
            value = value.item()
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, Mapping):
            return self._pack_mapping(value, keys)
        if type(value) in (list, tuple):
            items = [self.pack(item, (*keys, i)) for i, item in enumerate(value)]
            return items if type(value) is list else {"$tuple": items}
        return {"$array": self._store(value, keys)}

    def _pack_mapping(self, value: Mapping[Any, Any], keys: tuple[Any, ...]) -> Any:
        for key in value:
            if type(key) not in (str, int, float, bool, type(None)):
                raise TypeError(
                    f"save: keys of {_path(keys)} must be strings or numbers, got {key!r}"
                )
        items = [(key, self.pack(item, (*keys, key))) for key, item in value.items()]
        if all(type(key) is str and not key.startswith("$") for key, _ in items):
            return dict(items)
        return {"$dict": [list(item) for item in items]}

    def _store(self, value: Any, keys: tuple[Any, ...]) -> str:
        array = _as_array(value, keys)
        name = base = ".".join(str(key) for key in keys)
        while name in self.arrays or name == "__metadata__":
            name = f"{base}#{len(self.arrays)}"
        self.arrays[name] = array
        return name


def _as_array(value: Any, keys: tuple[Any, ...]) -> Array:
    """Return a contiguous array in native byte order, 0-d included, without changing a value."""
    from fastdl.tensor import Tensor

    array = value.numpy() if isinstance(value, Tensor) else value
    if not isinstance(array, np.ndarray):
        raise TypeError(
            f"save: {_path(keys)} must be an array, Tensor, number, string, bool, None, list,"
            f" tuple or mapping, got {type(value).__name__}"
        )
    if array.dtype.name not in _DTYPES:
        raise TypeError(
            f"save: {_path(keys)} must be an array of floats, integers or bool,"
            f" got dtype {array.dtype}"
        )
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def _path(keys: tuple[Any, ...]) -> str:
    return "mapping" + "".join(f"[{key!r}]" for key in keys)


def _unpack(node: Any, arrays: dict[str, Any], depth: int) -> Any:
    """Rebuild a value; takes every array it uses out of `arrays`."""
    if depth > _MAX_DEPTH + 1:
        raise ValueError("nested too deep")
    if isinstance(node, list):
        return [_unpack(item, arrays, depth + 1) for item in node]
    if not isinstance(node, dict):
        return node
    if not any(key.startswith("$") for key in node):
        return {key: _unpack(item, arrays, depth + 1) for key, item in node.items()}
    ((kind, content),) = node.items()
    if kind == "$array":
        return arrays.pop(content)
    if kind == "$tuple":
        return tuple(_unpack(item, arrays, depth + 1) for item in content)
    if kind == "$dict":
        return {key: _unpack(item, arrays, depth + 1) for key, item in content}
    raise ValueError(f"unknown structure {kind!r}")
