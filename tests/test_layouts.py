"""Public operations take arrays as users have them, and refuse what they cannot write to."""

from __future__ import annotations

import inspect
from typing import Any

import fastdl
import numpy as np
import pytest
from fastdl import _core
from harness import DTYPES, bits_equal, build, kernels
from layouts import LAYOUTS, byte_swapped, last_axis_strided, read_only
from opcase import Array, Kernel, Public

HERE = [k for k in kernels() if k.public and k.name in _core.op_names()]
each_op = pytest.mark.parametrize("kernel", HERE, ids=lambda k: k.public.name)
each_op_with_out = pytest.mark.parametrize(
    "kernel",
    [k for k in HERE if "out" in inspect.signature(getattr(fastdl.ops, k.public.name)).parameters],
    ids=lambda k: k.public.name,
)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])


def public(kernel: Kernel) -> Public:
    assert kernel.public
    return kernel.public


def arguments(kernel: Kernel, dtype: Any = np.float32) -> tuple[dict[str, Array], list[str]]:
    """Fresh arrays for a public call, and the names of those that are read only."""
    call = build(kernel, public(kernel).case, dtype)
    arrays = {n: call.arrays[n].copy() for n in call.names("in", "inout")}
    return arrays, call.names("in")


def result(kernel: Kernel, arrays: dict[str, Array], **options: Any) -> Array:
    return public(kernel).call(fastdl, arrays, **options)


def test_every_public_op_with_a_kernel_is_here() -> None:
    stems = {k.public.name for k in HERE if k.public}
    named = {n for n in fastdl.ops.__all__ if any(k.startswith(n) for k in _core.op_names())}
    assert {n for n in named if not n.endswith("_backward")} == stems


@each_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
@each_op
def test_any_layout_gives_the_same_bits(kernel: Kernel, layout: str, dtype: Any) -> None:
    arrays, readable = arguments(kernel, dtype)
    want = result(kernel, arrays)
    for names in [[name] for name in readable] + [readable]:
        arrays, _ = arguments(kernel, dtype)
        arrays.update({n: LAYOUTS[layout](arrays[n]) for n in names})
        before = {n: arrays[n].tobytes() for n in readable}
        assert bits_equal(result(kernel, arrays), want), f"{names} {layout}"
        assert {n: arrays[n].tobytes() for n in readable} == before, "an input was written"


@each_op
def test_foreign_byte_order_is_refused(kernel: Kernel) -> None:
    _, readable = arguments(kernel)
    for name in readable:
        arrays, _ = arguments(kernel)
        if arrays[name].itemsize == 1:
            continue
        arrays[name] = byte_swapped(arrays[name])
        with pytest.raises(TypeError, match=r"got|native"):
            result(kernel, arrays)


@each_op
def test_float16_is_refused(kernel: Kernel) -> None:
    arrays, readable = arguments(kernel)
    arrays[readable[0]] = arrays[readable[0]].astype(np.float16)
    with pytest.raises(TypeError, match=rf"{readable[0]} must be .*got float16"):
        result(kernel, arrays)


@each_op_with_out
def test_out_receives_the_result(kernel: Kernel) -> None:
    want = result(kernel, arguments(kernel)[0])
    out = np.empty_like(want)
    assert result(kernel, arguments(kernel)[0], out=out) is out
    assert bits_equal(out, want)


@pytest.mark.parametrize(
    "change, raises, text",
    [
        (read_only, ValueError, "writeable"),
        (last_axis_strided, ValueError, "contiguous"),
        (lambda out: np.zeros((*out.shape, 1), out.dtype), ValueError, "out|Y"),
        (lambda out: out.astype(np.float64), TypeError, "float64"),
        (byte_swapped, TypeError, "got|native"),
        (lambda out: out.tolist(), TypeError, "list"),
    ],
    ids=["read-only", "strided", "shape", "dtype", "byte order", "list"],
)
@each_op_with_out
def test_out_is_refused(kernel: Kernel, change: Any, raises: type[Exception], text: str) -> None:
    wrong = change(np.zeros_like(result(kernel, arguments(kernel)[0])))
    arrays, _ = arguments(kernel)
    before = {n: a.tobytes() for n, a in arrays.items()}
    with pytest.raises(raises, match=text):
        result(kernel, arrays, out=wrong)
    assert not np.any(wrong), "out was written"
    assert {n: a.tobytes() for n, a in arrays.items()} == before


@each_op_with_out
def test_out_over_part_of_an_input_is_refused(kernel: Kernel) -> None:
    arrays, _ = arguments(kernel)
    size = result(kernel, arguments(kernel)[0]).size
    shape = result(kernel, arguments(kernel)[0]).shape
    buffer = np.zeros(size + arrays["X"].size, np.float32)
    X = buffer[size - 1 : size - 1 + arrays["X"].size].reshape(arrays["X"].shape)
    X[...] = arrays["X"]
    before = buffer.copy()
    with pytest.raises(ValueError, match="share memory"):
        result(kernel, {**arrays, "X": X}, out=buffer[:size].reshape(shape))
    assert np.array_equal(buffer, before)
