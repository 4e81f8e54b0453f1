"""Calls drawn at random: any sizes, attributes and subset of optional arguments of every kernel."""

from __future__ import annotations

from typing import Any

import checks
import pytest
from fastdl import _core
from harness import DTYPES, EMULATOR, arguments, arrays_of, kernels
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from opcase import EDGE_SIZES, Case, Kernel

HERE = [k for k in kernels() if k.name in _core.op_names()]
each_kernel = pytest.mark.parametrize("kernel", HERE, ids=lambda k: k.name)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])

SIZES = st.one_of(st.integers(0, 20), st.sampled_from(EDGE_SIZES))
SHAPES = st.lists(st.integers(0, 9), max_size=4).map(tuple)


def examples(backend: str) -> int:
    return 5 if backend == EMULATOR else settings().max_examples


def draw_sizes(draw: st.DrawFn, kernel: Kernel) -> dict[str, int]:
    letters = {d for a in arrays_of(kernel.name) for d in a.dims.split() if d.isalpha()}
    sizes = {d: draw(SIZES) for d in sorted(letters - set(kernel.sizes))}
    for letter, allowed in kernel.sizes.items():
        choice = draw(st.sampled_from(allowed))
        sizes[letter] = sizes[choice] if isinstance(choice, str) else choice
    return sizes


@st.composite
def calls(draw: st.DrawFn, kernel: Kernel, dtype: Any) -> Case:
    args = arguments(kernel.name)
    optional = sorted(a.name for a in args if a.optional)
    absent = draw(st.sets(st.sampled_from(optional))) if optional else set()
    attributes = {name: draw(st.sampled_from(v)) for name, v in kernel.attributes.items()}
    shape = draw(SHAPES) if any(a.dims == "*" for a in args) else None
    sizes = draw_sizes(draw, kernel)
    case = Case(without=" ".join(absent), shape=shape, **sizes, **attributes)
    assume(kernel.valid(case) and kernel.admits(case, dtype))
    return case


@each_dtype
@each_kernel
def test_random_calls(kernel: Kernel, backend: str, dtype: Any) -> None:
    @settings(max_examples=examples(backend))
    @given(case=calls(kernel, dtype), seed=st.integers(0, 99))
    def check(case: Case, seed: int) -> None:
        checks.check_values(kernel, case, dtype, seed)
        checks.check_same_bits(kernel, case, dtype, seed, repeats=2)

    check()


@each_dtype
@each_kernel
def test_random_replays(kernel: Kernel, backend: str, dtype: Any) -> None:
    @settings(max_examples=examples(backend))
    @given(case=calls(kernel, dtype))
    def check(case: Case) -> None:
        checks.check_replay(kernel, case, dtype)

    check()
