"""Calls that a kernel must refuse, derived from its own description, and those an op file lists.

Every refusal has one clear sentence, and leaves all arguments as they were.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastdl import _core
from harness import BF16, Arg, Call, arguments, arrays_of, build
from layouts import byte_swapped, last_axis_strided, misaligned, read_only
from opcase import Array, Error, Kernel

ANY = (TypeError, ValueError)
#: The kinds that share a dtype.
FLOATS = ("real", "stored")


@dataclass(frozen=True)
class Refusal:
    """A call, and the error that it must raise."""

    label: str
    arguments: Mapping[str, Any]
    raises: type[Exception] | tuple[type[Exception], ...]
    pattern: str
    positional: tuple[Any, ...] = ()


def check_refusal(kernel_name: str, refusal: Refusal) -> None:
    """Raises AssertionError unless the call fails as it should and changes nothing."""
    arrays = [a for a in refusal.arguments.values() if isinstance(a, np.ndarray)]
    before = [a.tobytes() for a in arrays]
    what = f"{kernel_name}, {refusal.label}"
    try:
        getattr(_core, kernel_name)(*refusal.positional, **refusal.arguments)
    except refusal.raises as error:
        text = str(error)
        assert re.search(refusal.pattern, text), f"{what}: {text!r} is not {refusal.pattern!r}"
    except Exception as error:
        raise AssertionError(f"{what}: {error!r} should be {refusal.raises}") from error
    else:
        raise AssertionError(f"{what}: was not refused")
    assert [a.tobytes() for a in arrays] == before, f"{what}: changed an argument"


def listed_refusal(kernel: Kernel, error: Error) -> Refusal:
    """What an op file lists under `errors`, for float32."""
    call = build(kernel, error.case, np.float32)
    known = {a.name: a for a in arguments(kernel.name)}
    given: dict[str, Any] = {**call.arrays, **call.attributes}
    for name, value in error.change.items():
        is_shape = isinstance(value, tuple) and known[name].role != "attr"
        given[name] = np.zeros(value, np.float32) if is_shape else value
    pattern = error.text if error.text.startswith("^") else f"^{re.escape(error.text)}$"
    return Refusal(repr(error), given, error.raises, pattern)


def derived_refusals(call: Call) -> Iterator[Refusal]:
    """Everything that the description of a kernel rules out, for a valid call of it."""
    given = {**call.arrays, **call.attributes}
    yield from _call_refusals(call, given)
    for arg in arguments(call.kernel.name):
        source = _attribute_refusals if arg.role == "attr" else _array_refusals
        if arg.name not in given:
            continue
        for label, value, raises, pattern in source(arg, call):
            yield Refusal(f"{arg.name} {label}", {**given, arg.name: value}, raises, pattern)
    yield from _overlap_refusals(call, given)


_Change = tuple[str, Any, Any, str]


def _call_refusals(call: Call, given: dict[str, Any]) -> Iterator[Refusal]:
    op = call.kernel.name
    yield Refusal("unknown argument", {**given, "nonsense": 1}, TypeError, f"{op}: .*nonsense")
    yield Refusal("no argument's name", {**given, "\ud800": 1}, UnicodeEncodeError, "surrogates")
    first = arguments(op)[0].name
    yield Refusal("given twice", given, TypeError, f"{op}: {first} ", (given[first],))
    for arg in arrays_of(op):
        if not arg.optional:
            rest = {k: v for k, v in given.items() if k != arg.name}
            yield Refusal(f"{arg.name} missing", rest, ANY, f"^{op}: {arg.name} must be .*nothing")


def _array_refusals(arg: Arg, call: Call) -> Iterator[_Change]:
    must = f"^{call.kernel.name}: {arg.name} must be "
    array = call.arrays[arg.name]
    yield "is a list", array.tolist(), TypeError, must + "a NumPy array, got (list|float|int)"
    if not arg.optional:
        yield "is None", None, ANY, must
    yield from _dtype_refusals(arg, call, must)
    yield from _shape_refusals(arg, call, must)
    if array.itemsize > 1:
        yield "misaligned", misaligned(array), ValueError, must + "aligned"
    if not arg.strided and array.ndim and array.size > 1:
        yield "strided", last_axis_strided(array), ValueError, must + "C-contiguous"
    if arg.role != "in":
        yield "read-only", read_only(array), ValueError, must + "writeable"


def _dtype_refusals(arg: Arg, call: Call, must: str) -> Iterator[_Change]:
    array = call.arrays[arg.name]
    for dtype in (np.float16, np.complex64, np.bool_, object):
        yield f"is {dtype.__name__}", np.zeros(array.shape, dtype), TypeError, must
    if array.itemsize > 1:
        yield "byte-swapped", byte_swapped(array), TypeError, must + ".*native"
    if arg.kind == "any":
        return
    wrong = {
        "real": np.int64, "index": np.float32, "i64": np.int32, "f64": np.float32, "u8": np.int64,
        "stored": np.int64, "cast": np.int64,
    }[arg.kind]  # fmt: skip
    yield f"is {wrong.__name__}", np.zeros(array.shape, wrong), TypeError, must
    if arg.kind in FLOATS:
        text = must + r"float\S+\(.*got bfloat16.*; bfloat16 is stored on devices only"
        yield "is bfloat16", np.zeros(array.shape, BF16), TypeError, text
    others = [a for a in arrays_of(call.kernel.name) if a.kind in FLOATS and a.name in call.arrays]
    if arg.kind in FLOATS and len(others) > 1:
        other = np.float32 if call.dtype == np.float64 else np.float64
        pattern = f"^{call.kernel.name}: \\w+ must be .*float"
        yield "of the other float", array.astype(other), TypeError, pattern


def _shape_refusals(arg: Arg, call: Call, must: str) -> Iterator[_Change]:
    array = call.arrays[arg.name]
    present = [a for a in arrays_of(call.kernel.name) if a.name in call.arrays]
    any_must = f"^{call.kernel.name}: \\w+ must be "
    longer = np.zeros((*array.shape, 1), array.dtype)
    if arg.dims != "*":
        yield "of a higher rank", longer, ValueError, must
    elif sum(a.dims == "*" for a in present) > 1:
        yield "of a higher rank", longer, ValueError, any_must
    uses = Counter(letter for a in present for letter in a.dims.split())
    for axis, letter in enumerate(arg.dims.split() if arg.dims != "*" else []):
        if uses[letter] < 2 and not letter.isdigit():
            continue
        shape = list(array.shape)
        shape[axis] += 1
        yield f"with one more {letter}", np.zeros(shape, array.dtype), ValueError, any_must


def _attribute_refusals(arg: Arg, call: Call) -> Iterator[_Change]:
    must = f"^{call.kernel.name}: {arg.name} must be "
    yield "is an object", object(), TypeError, must
    yield "is None", None, TypeError, must
    if arg.choices:
        known = ".*".join(f"'{c}'" for c in arg.choices)
        yield "unknown", "nonsense", ValueError, must + f"one of {known}, got 'nonsense'"
        yield "is an int", 1, TypeError, must + f"one of {known}, got 1"
    elif isinstance(arg.default, bool):
        yield "is an int", 1, TypeError, must + "True or False, got 1"
    elif isinstance(arg.default, int):
        yield "is a float", 1.0, TypeError, must + "an integer, got 1.0"
        yield "is a bool", True, TypeError, must + "an integer, got True"
    else:
        yield "is a str", "1", TypeError, must + "a number, got '1'"
        yield "is a bool", True, TypeError, must + "a number, got True"


def _overlap_refusals(call: Call, given: dict[str, Any]) -> Iterator[Refusal]:
    """Outputs over other arguments: the whole array unless allowed, and part of it never."""
    for out in call.names("out", "inout"):
        for other in call.arrays:
            x, y = call.arrays[out], call.arrays[other]
            if other == out or min(x.size, y.size) == 0 or x.dtype != y.dtype:
                continue
            pattern = f"^{call.kernel.name}: (\\w+) must not share memory with (\\w+)"
            if x.shape == y.shape and f"{out}={other}" not in call.kernel.inplace:
                same = {**given, out: y}
                yield Refusal(f"{out} is {other}", same, ValueError, pattern)
            if x.size > 1 or y.size > 1:
                moved = _side_by_side(x, y)
                yield Refusal(
                    f"{out} overlaps {other}", {**given, out: moved[0], other: moved[1]},
                    ValueError, pattern,
                )  # fmt: skip


def _side_by_side(x: Array, y: Array) -> tuple[Array, Array]:
    """Copies of both in one buffer: y starts at the last element of x."""
    buffer = np.zeros(x.size + y.size, x.dtype)
    start = x.size - 1
    new_y = buffer[start : start + y.size].reshape(y.shape)
    new_x = buffer[: x.size].reshape(x.shape)
    new_y[...] = y
    return new_x, new_y
