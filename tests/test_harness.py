"""The checks can fail: each kind of defect, put into a kernel that is right, is caught."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import checks
import contract
import numpy as np
import pytest
from fastdl import _core
from harness import BF16, EMULATOR, build, kernels, wide
from opcase import Array, Case, Gradient, Kernel

Args = dict[str, Any]
Broken = Callable[[Args, Callable[..., None]], None]

RELU, AFFINE, AFFINE_BACKWARD = (
    next(k for k in kernels() if k.name == name)
    for name in ("relu_forward", "affine_forward", "affine_backward")
)
VECTOR = Case(shape=(37,))
BATCH = Case(B=5, n=6, m=7)


def break_kernel(monkeypatch: pytest.MonkeyPatch, name: str, broken: Broken) -> None:
    real = getattr(_core, name)
    monkeypatch.setattr(_core, name, lambda **args: broken(args, real))


def nudge(array: Array) -> None:
    """The next representable number: the smallest error there is."""
    array.flat[0] = np.nextafter(array.flat[0], np.inf, dtype=array.dtype)


def caught(check: Callable[[], None], text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        check()


# ---- values and memory --------------------------------------------------------------------------


def off_by_rounding(args: Args, real: Callable[..., None]) -> None:
    real(**args)
    args["Y"] += 60 * np.finfo(args["Y"].dtype).eps * np.abs(args["Y"]).max()


def one_wrong_element(args: Args, real: Callable[..., None]) -> None:
    real(**args)
    args["Y"].flat[-1] += 1


def element_left_out(args: Args, real: Callable[..., None]) -> None:
    before = args["Y"].flat[-1]
    real(**args)
    args["Y"].flat[-1] = before


def writes_input(args: Args, real: Callable[..., None]) -> None:
    real(**args)
    args["X"].flat[0] = 0


def writes_behind_output(args: Args, real: Callable[..., None]) -> None:
    real(**args)
    ctypes.memset(args["Y"].ctypes.data + args["Y"].nbytes, 0, 1)


def writes_before_output(args: Args, real: Callable[..., None]) -> None:
    real(**args)
    ctypes.memset(args["Y"].ctypes.data - 1, 0, 1)


def reads_behind_input(args: Args, real: Callable[..., None]) -> None:
    real(**args)
    X = args["X"].reshape(-1)
    longer = np.lib.stride_tricks.as_strided(X, (X.size + 1,), writeable=False)
    args["Y"].flat[-1] += longer[-1] * 0


VALUE_DEFECTS: list[tuple[Broken, str]] = [
    (off_by_rounding, "elements are wrong"),
    (one_wrong_element, "1 of 35 elements are wrong"),
    (element_left_out, "is np.float.*nan"),
    (writes_input, "wrote into its input X"),
    (writes_behind_output, "wrote outside its output Y"),
    (writes_before_output, "wrote outside its output Y"),
    (reads_behind_input, "nan"),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("broken, text", VALUE_DEFECTS, ids=lambda x: getattr(x, "__name__", ""))
def test_values_catches(
    monkeypatch: pytest.MonkeyPatch, broken: Broken, text: str, dtype: Any
) -> None:
    checks.check_values(AFFINE, BATCH, dtype)
    break_kernel(monkeypatch, "affine_forward", broken)
    caught(lambda: checks.check_values(AFFINE, BATCH, dtype), text)


@pytest.mark.skipif(EMULATOR not in _core.backends(), reason="needs FASTDL_CUEMU")
@pytest.mark.parametrize(
    "name, case",
    [("accumulate", VECTOR), ("layer_norm_forward", Case(B=5, n=33))],
    ids=["exact", "bound"],
)
def test_values_catches_bf16_that_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, name: str, case: Case
) -> None:
    def broken(args: Args, real: Callable[..., None]) -> None:
        widened = {n: wide(a).copy() if isinstance(a, np.ndarray) else a for n, a in args.items()}
        real(**widened)
        bits = widened["Y"].view(np.uint32) & np.uint32(0xFFFF0000)
        args["Y"][...] = bits.view(np.float32)
        for other in args.keys() & {"mean", "rstd"}:
            args[other][...] = widened[other]

    kernel = next(k for k in kernels() if k.name == name)
    _core.use_backend(EMULATOR)
    checks.check_values(kernel, case, BF16)
    break_kernel(monkeypatch, name, broken)
    caught(lambda: checks.check_values(kernel, case, BF16), "elements are wrong")


def test_values_catches_an_error_of_one_ulp_in_an_exact_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(args: Args, real: Callable[..., None]) -> None:
        real(**args)
        nudge(args["Y"])

    break_kernel(monkeypatch, "relu_forward", broken)
    caught(lambda: checks.check_values(RELU, VECTOR, np.float32), "1 of 37 elements are wrong")


def test_values_catches_adding_where_storing_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(args: Args, real: Callable[..., None]) -> None:
        real(**{**args, "accumulate": not args["accumulate"]})

    case = replace_attributes(BATCH, accumulate=True)
    break_kernel(monkeypatch, "affine_backward", broken)
    caught(lambda: checks.check_values(AFFINE_BACKWARD, BATCH, np.float32), "d[Wb].*nan")
    caught(lambda: checks.check_values(AFFINE_BACKWARD, case, np.float32), "d[Wb]")


def replace_attributes(case: Case, **attributes: Any) -> Case:
    return Case(**case.sizes, **attributes)


# ---- bits ---------------------------------------------------------------------------------------


def nudge_if(condition: Callable[[Args], bool]) -> Broken:
    def broken(args: Args, real: Callable[..., None]) -> None:
        real(**args)
        if condition(args):
            nudge(args["Y"])

    return broken


@pytest.mark.parametrize("threads", checks.THREADS[1:])
def test_bits_catches_thread_counts(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    broken = nudge_if(lambda args: _core.get_num_threads() == threads)
    break_kernel(monkeypatch, "affine_forward", broken)
    caught(lambda: checks.check_same_bits(AFFINE, BATCH, np.float32), f"{threads} threads")


def test_bits_catches_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = nudge_if(lambda args: args["X"].ctypes.data % 64 != 0)
    break_kernel(monkeypatch, "affine_forward", broken)
    caught(lambda: checks.check_same_bits(AFFINE, BATCH, np.float64), "offset 1")


def test_bits_catches_the_hundredth_call(monkeypatch: pytest.MonkeyPatch) -> None:
    count = itertools.count(1)
    break_kernel(monkeypatch, "affine_forward", nudge_if(lambda args: next(count) == 100))
    caught(lambda: checks.check_same_bits(AFFINE, BATCH, np.float32), "first call against call")


def test_rows_catches_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    checks.check_rows(AFFINE, BATCH, np.float32)
    break_kernel(monkeypatch, "affine_forward", nudge_if(lambda args: args["X"].shape[0] == 1))
    caught(lambda: checks.check_rows(AFFINE, BATCH, np.float32), "whole batch against rows")


def test_backends_catches_a_different_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    names = _core.backends()[:1] * 2
    count = itertools.count()
    break_kernel(monkeypatch, "affine_forward", nudge_if(lambda args: next(count) == 1))
    caught(
        lambda: checks.check_backends_agree(AFFINE, BATCH, np.float32, names),
        f"{names[0]} against",
    )


# ---- replay, specials, in place, gradient -------------------------------------------------------


def on_stale_copies(args: Args, real: Callable[..., None]) -> None:
    """Records the addresses of private copies, which replay cannot rebind."""
    real(**{**args, "X": args["X"].copy()})


def not_recorded(args: Args, real: Callable[..., None]) -> None:
    args["Y"][...] = np.maximum(args["X"], 0)


@pytest.mark.parametrize(
    "broken, text",
    [(on_stale_copies, "eager against replay"), (not_recorded, "was not recorded")],
)
def test_replay_catches(monkeypatch: pytest.MonkeyPatch, broken: Broken, text: str) -> None:
    checks.check_replay(RELU, VECTOR, np.float32)
    break_kernel(monkeypatch, "relu_forward", broken)
    caught(lambda: checks.check_replay(RELU, VECTOR, np.float32), text)


def test_specials_catches_a_lost_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(args: Args, real: Callable[..., None]) -> None:
        real(**args)
        np.nan_to_num(args["Y"], copy=False, posinf=np.inf)

    break_kernel(monkeypatch, "relu_forward", broken)
    caught(lambda: checks.check_specials(RELU, VECTOR, np.float32), "X with nan")


def test_in_place_catches(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(args: Args, real: Callable[..., None]) -> None:
        real(**args)
        if args["Y"] is args["X"]:
            nudge(args["Y"])

    checks.check_inplace(RELU, VECTOR, np.float32)
    break_kernel(monkeypatch, "relu_forward", broken)
    caught(lambda: checks.check_inplace(RELU, VECTOR, np.float32), "apart against Y=X")


def test_gradient_catches_a_wrong_formula() -> None:
    def affine_backward(dY: Array, X: Array, W: Array) -> dict[str, Array]:
        return {"dX": dY @ W.T * 1.000001, "dW": X.T @ dY}

    gradient = Gradient([BATCH], {"X": "dX", "W": "dW"}, "Y", affine_backward)
    caught(lambda: checks.check_gradient(AFFINE, gradient, BATCH), "dX of the reference")


# ---- refusals -----------------------------------------------------------------------------------


def refuse_all(kernel: Kernel, case: Case) -> None:
    call = build(kernel, case, np.float32)
    for refusal in contract.derived_refusals(call):
        contract.check_refusal(kernel.name, refusal)


def casts_silently(args: Args, real: Callable[..., None]) -> None:
    real(**{k: np.asarray(v, np.float32) if k == "X" else v for k, v in args.items()})


def fails_late(args: Args, real: Callable[..., None]) -> None:
    Y = args.get("Y")
    if isinstance(Y, np.ndarray) and Y.flags.writeable and Y.dtype == np.float32:
        Y.flat[0] = 7
    real(**args)


def says_little(args: Args, real: Callable[..., None]) -> None:
    try:
        real(**args)
    except TypeError:
        raise TypeError("bad argument") from None


def wrong_type(args: Args, real: Callable[..., None]) -> None:
    try:
        real(**args)
    except TypeError as error:
        raise RuntimeError(str(error)) from None


@pytest.mark.parametrize(
    "broken, text",
    [
        (casts_silently, "was not refused"),
        (fails_late, "changed an argument"),
        (says_little, "'bad argument' is not"),
        (wrong_type, "should be"),
    ],
)
def test_refusals_catches(monkeypatch: pytest.MonkeyPatch, broken: Broken, text: str) -> None:
    refuse_all(RELU, VECTOR)
    real = _core.relu_forward
    monkeypatch.setattr(
        _core,
        "relu_forward",
        lambda *values, **args: real(*values, **args) if values else broken(args, real),
    )
    caught(lambda: refuse_all(RELU, VECTOR), text)


def test_refusals_catches_a_changed_text(monkeypatch: pytest.MonkeyPatch) -> None:
    error = replace(AFFINE.errors[0], text="affine_forward: W is bad")
    refusal = contract.listed_refusal(AFFINE, error)
    caught(lambda: contract.check_refusal(AFFINE.name, refusal), "W must be")


def test_an_unknown_attribute_in_a_case_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no attributes"):
        build(AFFINE, replace_attributes(BATCH, activations="relu"), np.float32)
