"""Every kernel, on every backend of this machine, in every dtype, on every case of its op file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import checks
import contract
import numpy as np
import pytest
from fastdl import _core
from harness import (
    BF16,
    CPU_BACKENDS,
    EMULATOR,
    arguments,
    arrays_of,
    build,
    dtypes_of,
    emulated,
    kernels,
    op_modules,
)
from opcase import Case, Kernel

HERE = [k for k in kernels() if k.name in _core.op_names()]
FMA = [name for name in CPU_BACKENDS if name != "generic"]

Chosen = tuple[Kernel, Any]


def over(choose: Callable[[Kernel], Iterable[Any]]) -> pytest.MarkDecorator:
    """Parametrizes a test by (kernel, item) for the items that `choose` finds in each kernel."""
    chosen = [(k, item) for k in HERE for item in choose(k)]
    names = [f"{k.name}-{item!r}" for k, item in chosen]
    return pytest.mark.parametrize("chosen", chosen, ids=names)


def over_dtypes(
    choose: Callable[[Kernel], Iterable[Case]], all_of_bf16: bool = False
) -> pytest.MarkDecorator:
    """The same by (kernel, case) and dtype; in bf16, where kernels are those of f32, some cases."""
    chosen = [
        ((k, case), dtype)
        for k in HERE
        for i, case in enumerate(choose(k))
        for dtype in dtypes_of(k)
        if k.admits(case, dtype)
        if dtype != BF16 or all_of_bf16 or (i % 5 == 0 and case.elements < 5000)
    ]
    names = [
        f"{k.name}-{case!r}-{'b' if dtype == BF16 else ''}f{8 * np.dtype(dtype).itemsize}"
        for (k, case), dtype in chosen
    ]
    return pytest.mark.parametrize("chosen, dtype", chosen, ids=names)


def special_cases(k: Kernel) -> Iterable[Case]:
    return (k.special_cases or [Case(shape=(7, 19))]) if k.specials else ()


def row_cases(k: Kernel) -> Iterable[Case]:
    return [c for c in k.cases if k.rows and k.row_cases(c) and c.sizes[k.rows] > 0]


def refusal_cases(k: Kernel) -> Iterable[Case]:
    return [k.errors[0].case]


each_call = over_dtypes(lambda k: k.cases)


def test_every_kernel_has_a_reference_and_every_reference_a_kernel() -> None:
    names = [k.name for k in kernels()]
    assert len(set(names)) == len(names)
    assert set(names) == set(_core.op_names())


@pytest.mark.parametrize("module", op_modules(), ids=lambda m: m.__name__)
def test_op_file(module: Any) -> None:
    """A docstring with the formulas, errors for every kernel, its own checks of the reference."""
    assert module.__doc__
    for kernel in module.KERNELS:
        floats = any(a.kind in ("real", "stored", "cast", "any") for a in arrays_of(kernel.name))
        assert kernel.errors, f"{kernel.name}: list errors"
        assert kernel.specials or not floats, f"{kernel.name}: list specials"
        assert len({repr(c) for c in kernel.cases}) == len(kernel.cases), "a case is there twice"
    getattr(module, "check_reference", lambda: None)()


@over(lambda k: k.gradient.cases if k.gradient else ())
def test_gradient_of_the_reference(chosen: Chosen) -> None:
    kernel, case = chosen
    assert kernel.gradient
    checks.check_gradient(kernel, kernel.gradient, case)


def test_every_attribute_value_is_in_the_cases() -> None:
    for kernel in HERE:
        for name, values in kernel.attributes.items():
            used = [build(kernel, c, np.float32).attributes[name] for c in kernel.cases]
            missing = {v for v in values if isinstance(v, (str, bool))} - set(used)
            assert not missing, f"{kernel.name}: no case has {name} = {missing}"


@over_dtypes(lambda k: k.cases, all_of_bf16=True)
def test_values(chosen: Chosen, backend: str, dtype: Any) -> None:
    checks.check_values(*chosen, dtype)


@each_call
def test_same_bits(chosen: Chosen, backend: str, dtype: Any) -> None:
    checks.check_same_bits(*chosen, dtype)


@over_dtypes(row_cases)
def test_rows_do_not_depend_on_the_batch(chosen: Chosen, backend: str, dtype: Any) -> None:
    checks.check_rows(*chosen, dtype)


@pytest.mark.parametrize("names", [FMA] if len(FMA) > 1 else [], ids="=".join)
@each_call
def test_backends_with_fma_agree(chosen: Chosen, dtype: Any, names: list[str]) -> None:
    checks.check_backends_agree(*chosen, dtype, names)


@pytest.mark.few_emulated
@each_call
def test_replay_is_eager(chosen: Chosen, backend: str, dtype: Any) -> None:
    checks.check_replay(*chosen, dtype)


@pytest.mark.parametrize("backend", [EMULATOR] if emulated() else [], indirect=True)
@pytest.mark.few_emulated
@each_call
def test_on_device(chosen: Chosen, backend: str, dtype: Any) -> None:
    checks.check_on_device(*chosen, dtype)


@over_dtypes(special_cases)
def test_nan_and_inf(chosen: Chosen, backend: str, dtype: Any) -> None:
    checks.check_specials(*chosen, dtype)


@over_dtypes(lambda k: k.cases if k.inplace else ())
def test_in_place(chosen: Chosen, backend: str, dtype: Any) -> None:
    checks.check_inplace(*chosen, dtype)


@over_dtypes(lambda k: k.cases if any(a.strided for a in arguments(k.name)) else ())
def test_strided_arguments(chosen: Chosen, backend: str, dtype: Any) -> None:
    checks.check_strided(*chosen, dtype)


@over(lambda k: k.errors)
def test_listed_errors(chosen: Chosen) -> None:
    kernel, error = chosen
    contract.check_refusal(kernel.name, contract.listed_refusal(kernel, error))


@over_dtypes(refusal_cases)
def test_derived_errors(chosen: Chosen, dtype: Any) -> None:
    kernel, case = chosen
    for refusal in contract.derived_refusals(build(kernel, case, dtype)):
        contract.check_refusal(kernel.name, refusal)
