"""What every kernel must keep, each as one function that raises AssertionError.

test_ops.py runs them over op x backend x dtype x case; test_harness.py shows that each can fail.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from fastdl import _core
from fastdl._array import to_device
from harness import (
    EMULATOR,
    Call,
    Placed,
    arguments,
    arrays_of,
    build,
    invoke,
    judge,
    run,
    same_bits,
)
from opcase import Array, Case, Gradient, Kernel

THREADS = (1, 2, 3, 8)
#: In bytes: so little that small cases are shared among threads too.
THREAD_WORK = 1024
#: In elements: on a 64-byte boundary, one off, and an odd place.
OFFSETS = (0, 1, 3)
#: The emulator has no threads of ours, and each of its calls draws another order of the kernel's.
EMULATED_REPEATS = 3
#: Below this many elements a call is cheap enough to be repeated a hundred times.
SMALL = 5000


def check_values(kernel: Kernel, case: Case, dtype: Any, seed: int = 0) -> None:
    """The reference's values within the derived bound, and no stray reads or writes."""
    call = build(kernel, case, dtype, seed)
    # The emulator is slow, and `check_same_bits` moves the arrays there as well.
    for offset in OFFSETS[:1] if _core.backend() == EMULATOR else OFFSETS:
        judge(call, run(call, offset=offset))


def check_same_bits(
    kernel: Kernel, case: Case, dtype: Any, seed: int = 0, repeats: int = 100
) -> None:
    """The same bits for any number of threads, any address and way to store, call after call."""
    call = build(kernel, case, dtype, seed)
    first = run(call)
    _core.set_work_per_thread(THREAD_WORK)
    emulated = _core.backend() == EMULATOR
    for threads in THREADS[:1] if emulated else THREADS:
        for offset in OFFSETS:
            what = f"{threads} threads, offset {offset}"
            same_bits(run(call, threads, offset), first, f"1 thread against {what}")
    _core.set_stream_bytes(1)
    for offset in () if emulated else OFFSETS:
        same_bits(run(call, 2, offset), first, f"stored against streamed, offset {offset}")
    _core.set_num_threads(2)
    placed = Placed(call)
    size = sum(a.size for a in call.arrays.values())
    if emulated:
        repeats = min(repeats, EMULATED_REPEATS)
    for i in range(repeats if size < SMALL else min(repeats, 1 if emulated else 5)):
        placed.reset()
        same_bits(placed.run(), first, f"first call against call {i + 2}")


def check_rows(kernel: Kernel, case: Case, dtype: Any) -> None:
    """One row alone, or half of the batch, has the bits it has in the whole batch."""
    call = build(kernel, case, dtype)
    B = case.sizes[kernel.rows]
    whole = run(call, threads=2)
    by_row = [a.name for a in arrays_of(kernel.name) if kernel.rows in a.dims.split()[:1]]
    for start, stop in {(0, 1), (B // 2, B // 2 + 1), (B - 1, B), (0, B // 2), (B // 2, B)}:
        part = rows_of(call, by_row, slice(start, stop))
        got = run(part)
        want = {n: whole[n][start:stop] for n in got if n in by_row}
        same_bits({n: got[n] for n in want}, want, f"whole batch against rows {start}:{stop}")


def rows_of(call: Call, by_row: list[str], rows: slice) -> Call:
    """The call on some rows, without the outputs that sum over rows."""
    outs = {a.name for a in arrays_of(call.kernel.name, "out") if a.optional}
    kept = {n: a for n, a in call.arrays.items() if n in by_row or n not in outs}
    arrays = {n: a[rows].copy() if n in by_row else a for n, a in kept.items()}
    return Call(call.kernel, call.case, call.dtype, arrays, call.attributes)


def check_backends_agree(kernel: Kernel, case: Case, dtype: Any, names: list[str]) -> None:
    """Backends with fused multiply-add give the same bits."""
    call = build(kernel, case, dtype)
    results = []
    for name in names:
        _core.use_backend(name)
        results.append(run(call, threads=2))
    for name, result in zip(names[1:], results[1:], strict=True):
        same_bits(result, results[0], f"{names[0]} against {name}")


def check_replay(kernel: Kernel, case: Case, dtype: Any) -> None:
    """A recorded call, bound to new inputs, gives the bits of the eager call on them."""
    calls = [build(kernel, case, dtype, seed) for seed in (0, 1)]
    eager = [run(call) for call in calls]
    recorded = Placed(calls[0])
    slots = {n: recorded.arrays[n] for n in calls[0].names("in")}
    program = _core.Program(list(slots.values()))
    program.begin()
    try:
        invoke(calls[0], recorded.arrays)
    finally:
        program.end()
    assert [c["name"] for c in program.calls()] == [kernel.name], "the call was not recorded"
    outputs = {n: recorded.arrays[n] for n in calls[0].names("out", "inout")}
    same_bits(outputs, eager[0], "eager against the recording run")
    for slot in slots.values():
        slot[...] = np.nan if slot.dtype.kind == "f" else np.array(-1).astype(slot.dtype)
    for i in (1, 0, 1):
        for name, array in outputs.items():
            array[...] = calls[i].arrays[name]
        bound = Placed(calls[i])
        program.run([bound.arrays[n] for n in slots])
        bound._check_memory()
        same_bits(outputs, eager[i], f"eager against replay on inputs {i}")


def check_on_device(kernel: Kernel, case: Case, dtype: Any) -> None:
    """Copied to the device, run and copied back: the bits of the same kernel on host arrays."""
    call = build(kernel, case, dtype)
    want = run(call)
    there = {name: to_device(array.copy(), EMULATOR) for name, array in call.arrays.items()}
    invoke(call, there)
    same_bits(want, {n: there[n].numpy() for n in want}, f"{kernel.name} on the device")
    inputs = call.names("in")
    before = {n: call.arrays[n] for n in inputs}
    same_bits(before, {n: there[n].numpy() for n in inputs}, f"{kernel.name}, inputs")


def check_specials(kernel: Kernel, case: Case, dtype: Any) -> None:
    """NaN, infinities, signed zeros and subnormal numbers go where the reference sends them."""
    tiny = ml_dtypes.finfo(dtype).smallest_subnormal
    for name in kernel.specials.split():
        for value in (np.nan, np.inf, -np.inf, -0.0, tiny, 0.0):
            call = build(kernel, case, dtype)
            if name not in call.arrays or call.arrays[name].size == 0:
                continue
            flat = call.arrays[name].reshape(-1)
            flat[flat.size // 3] = value
            flat[-1] = value
            try:
                judge(call, run(call))
            except AssertionError as error:
                raise AssertionError(f"{name} with {value}: {error}") from None


def check_inplace(kernel: Kernel, case: Case, dtype: Any) -> None:
    """Where an output may be one of the inputs, the result is the same."""
    for pair in kernel.inplace:
        out, source = pair.split("=")
        call = build(kernel, case, dtype)
        if source not in call.arrays:
            continue  # optional, and not given in this case
        want = run(call, threads=2)
        arrays = {n: a.copy() for n, a in call.arrays.items()}
        arrays[out] = arrays[source]
        invoke(call, arrays)
        same_bits({n: arrays[n] for n in want}, want, f"apart against {pair}")


def check_gradient(kernel: Kernel, gradient: Gradient, case: Case) -> None:
    """The reference's own gradient against central differences, in extended precision."""
    call = build(kernel, case, np.float64)
    inputs = {
        n: a.astype(np.longdouble) if a.dtype.kind == "f" else a
        for n, a in call.arrays.items()
        if n in call.names("in", "inout")
    }
    named = {**inputs, **call.attributes}
    forward = _by_name(kernel.reference)
    outputs = forward(named)
    rng = np.random.default_rng(case.seed)
    upstream = rng.standard_normal(np.shape(outputs[gradient.output]))
    if gradient.backward is None:
        upstream, gradients = np.ones_like(upstream), outputs
    else:
        known = {**named, **outputs, "d" + gradient.output: upstream.astype(np.longdouble)}
        gradients = _by_name(gradient.backward)(known)
    for name, slot in gradient.wrt.items():
        if name not in inputs:
            continue
        numeric = central_differences(
            lambda x, name=name: np.sum(forward({**named, name: x})[gradient.output] * upstream),
            inputs[name],
        )
        close = np.abs(gradients[slot] - numeric) <= 1e-7 * (1 + np.abs(numeric))
        assert np.all(close), f"{slot} of the reference: {gradients[slot]}, numeric {numeric}"


def central_differences(f: Callable[[Array], Any], x: Array) -> Array:
    h = np.longdouble(1e-5)
    gradient = np.empty_like(x)
    for at in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[at] += h
        down[at] -= h
        gradient[at] = (f(up) - f(down)) / (2 * h)
    return gradient


def _by_name(function: Callable[..., dict[str, Array]]) -> Callable[[dict[str, Any]], Any]:
    names = inspect.signature(function).parameters
    return lambda known: function(**{k: v for k, v in known.items() if k in names})


def check_strided(kernel: Kernel, case: Case, dtype: Any) -> None:
    """An argument that may have any strides gives the bits of its contiguous copy."""
    from layouts import LAYOUTS

    call = build(kernel, case, dtype)
    want = run(call)
    for arg in arguments(kernel.name):
        if not arg.strided:
            continue
        for label, layout in LAYOUTS.items():
            if label == "misaligned":
                continue
            arrays = {n: a.copy() for n, a in call.arrays.items()}
            arrays[arg.name] = layout(arrays[arg.name])
            invoke(call, arrays)
            same_bits({n: arrays[n] for n in want}, want, f"contiguous against {label}")
