"""Runs one kernel on one case and judges what comes out.  The checks themselves are in checks.py.

What a kernel's arguments are is read from the kernel's own description (`_core.signatures`); what
they should become is read from the reference in tests/ops.  See opcase.py for the words.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import ops
from fastdl import _core
from opcase import Array, Case, Kernel, Rng

DTYPES = (np.float32, np.float64)
#: Stored by some kernels on devices; ops compute in float32 then.
BF16 = np.dtype(ml_dtypes.bfloat16)
#: The backend that runs the CUDA kernels on the host, where it is built (docs/cuda.md).
EMULATOR = "cuemu"
#: It takes a microsecond for an element of a row: cases with more are left out there.
EMULATED_SIZE = 600_000
#: What is the same code for every backend is tried there on so many cases of each kernel.
EMULATED_FEW = 6
CPU_BACKENDS = [name for name in _core.backends() if name != EMULATOR]
#: What the truth for a dtype is computed in.  Where long double is no wider than double, the bound
#: for float64 rests on its `8 eps scale` term alone.
PRECISE = {
    BF16: np.float64,
    np.dtype(np.float32): np.float64,
    np.dtype(np.float64): np.longdouble,
}
GUARD_BYTES = 256


@dataclass(frozen=True)
class Arg:
    """One entry of a kernel's description: an array, or an attribute (role "attr")."""

    name: str
    role: str
    dims: str = ""
    kind: str = ""
    optional: bool = False
    strided: bool = False
    choices: tuple[str, ...] = ()
    default: Any = None


@functools.cache
def arguments(kernel_name: str) -> tuple[Arg, ...]:
    entries = _core.signatures()[kernel_name]
    return tuple(
        Arg(**{"role": "attr", **e, "choices": tuple(e.get("choices", ()))}) for e in entries
    )


def arrays_of(kernel_name: str, *roles: str) -> list[Arg]:
    roles = roles or ("in", "out", "inout")
    return [a for a in arguments(kernel_name) if a.role in roles]


def kinds_of(kernel_name: str) -> set[str]:
    return {a.kind for a in arrays_of(kernel_name)}


def dtypes_of(kernel: Kernel) -> tuple[Any, ...]:
    """The dtypes that a kernel is tested in, bf16 where some backend has it."""
    return (*DTYPES, BF16) if kinds_of(kernel.name) & {"stored", "cast"} else DTYPES


def admits_dtype(kernel: Kernel, dtype: Any, backend: str | None) -> bool:
    """Whether the kernel of a backend takes the dtype."""
    return dtype != BF16 or backend == EMULATOR or "stored" not in kinds_of(kernel.name)


def wide(array: Array) -> Array:
    """The array in a dtype that NumPy computes in."""
    return array.astype(np.float32) if array.dtype == BF16 else array


@functools.cache
def emulated() -> frozenset[str]:
    """The kernels that the emulator has."""
    return frozenset(_core.kernels(EMULATOR) if EMULATOR in _core.backends() else ())


@functools.cache
def op_modules() -> tuple[ModuleType, ...]:
    names = sorted(m.name for m in pkgutil.iter_modules(ops.__path__))
    return tuple(importlib.import_module(f"ops.{name}") for name in names)


@functools.cache
def kernels() -> tuple[Kernel, ...]:
    return tuple(k for module in op_modules() for k in module.KERNELS)


# ---- building a call ----------------------------------------------------------------------------


@dataclass
class Call:
    """Arguments of one call, outputs included: those hold what they contain before the call."""

    kernel: Kernel
    case: Case
    dtype: np.dtype[Any]
    arrays: dict[str, Array]
    attributes: dict[str, Any]
    known: dict[str, dict[str, Array]] = field(default_factory=dict)

    def names(self, *roles: str) -> list[str]:
        return [a.name for a in arrays_of(self.kernel.name, *roles) if a.name in self.arrays]


def shape_of(arg: Arg, case: Case) -> tuple[int, ...]:
    if arg.dims == "*":
        if case.shape is None:
            raise ValueError(f"case {case!r} must give shape=, which is the '*' of {arg.name}")
        return case.shape
    return tuple(int(d) if d.isdigit() else case.sizes[d] for d in arg.dims.split())


def default_dtype(arg: Arg, dtype: np.dtype[Any]) -> np.dtype[Any]:
    computed = wide(np.empty(0, dtype)).dtype
    kinds = {
        "index": np.int64, "i64": np.int64, "f64": np.float64, "u8": np.uint8, "real": computed,
    }  # fmt: skip
    return np.dtype(kinds.get(arg.kind, dtype))


def initial_output(arg: Arg, call: Call, rng: Rng) -> Array:
    """NaN, so that an element left out is seen; numbers where the call adds to its outputs."""
    shape, dtype = shape_of(arg, call.case), default_dtype(arg, call.dtype)
    if arg.kind == "any":
        dtype = next(iter(call.arrays.values())).dtype
    if call.attributes.get("accumulate") and dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return np.full(shape, 77 if dtype.kind in "iu" else np.nan, dtype)


def make_array(arg: Arg, call: Call, rng: Rng) -> Array:
    shape = shape_of(arg, call.case)
    value = call.case.values.get(arg.name, call.kernel.values.get(arg.name))
    if value is None:
        if arg.kind in ("index", "i64", "u8"):
            raise ValueError(f"{call.kernel.name}: say in Kernel.values how to make {arg.name}")
        value = rng.standard_normal(shape)
    array = value(rng, shape, call.case) if callable(value) else np.array(value)
    shares_dtype = arg.kind in ("real", "stored") or (arg.kind == "any" and array.dtype.kind == "f")
    return np.asarray(array, default_dtype(arg, call.dtype) if shares_dtype else array.dtype)


def build(kernel: Kernel, case: Case, dtype: Any, seed: int = 0) -> Call:
    """The call that a case stands for; the same (case, dtype, seed) gives the same arrays."""
    rng = np.random.default_rng([zlib.crc32(kernel.name.encode()), case.seed, seed])
    defaults = {a.name: a.default for a in arguments(kernel.name) if a.role == "attr"}
    unknown = set(case.attributes) - set(defaults)
    if unknown:
        raise ValueError(f"{kernel.name} has no attributes {unknown}; case {case!r}")
    for letter, sizes in kernel.sizes.items():
        if len(sizes) == 1 and isinstance(sizes[0], int):
            case.sizes.setdefault(letter, sizes[0])
    call = Call(kernel, case, np.dtype(dtype), {}, {**defaults, **case.attributes})
    absent = case.without | (set() if call.dtype == BF16 else set(kernel.only_bf16.split()))
    given = [a for a in arrays_of(kernel.name) if a.name not in absent]
    for arg in given:
        if arg.role != "out":
            call.arrays[arg.name] = make_array(arg, call, rng)
    for arg in given:
        if arg.role == "out":
            call.arrays[arg.name] = initial_output(arg, call, rng)
    return call


# ---- the reference ------------------------------------------------------------------------------


def reference_outputs(call: Call, precise: bool) -> dict[str, Array]:
    """What the reference makes of the call, in the kernel's dtype or in a wider one."""
    return _evaluate(call.kernel.reference, call, precise)


def scales(call: Call) -> dict[str, Array]:
    """The size of the terms of each output: what its rounding errors are measured against."""
    if call.kernel.scale is not None:
        return _evaluate(call.kernel.scale, call, precise=True)
    outputs = reference_outputs(call, precise=True)
    return {k: np.max(np.abs(v), initial=0, where=np.isfinite(v)) for k, v in outputs.items()}


def _evaluate(function: Any, call: Call, precise: bool) -> dict[str, Array]:
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    items: dict[str, Any] = {**call.attributes}
    for name, array in call.arrays.items():
        widened = wide(array)
        precisely = precise and widened.dtype.kind == "f"
        items[name] = widened.astype(PRECISE[call.dtype]) if precisely else widened.copy()
    used = items if takes_all else {k: v for k, v in items.items() if k in parameters}
    with np.errstate(all="ignore"):
        return {k: np.asarray(v) for k, v in function(**used).items() if v is not None}


def rounded_outputs(call: Call) -> set[str]:
    """The outputs that are stored in bf16."""
    return {n for n in call.names("out", "inout") if call.arrays[n].dtype == BF16}


def bound(call: Call, plain: dict[str, Array], precise: dict[str, Array]) -> dict[str, Array]:
    """2 err(same formula in NumPy at the kernel's dtype) + 8 eps scale, + what bf16 rounds off."""
    size = scales(call)
    eps = np.finfo(wide(np.empty(0, call.dtype)).dtype).eps
    limits = {}
    for name, truth in precise.items():
        with np.errstate(all="ignore"):
            error = np.abs(plain[name].astype(truth.dtype) - truth)
        worst = np.max(error, initial=0, where=np.isfinite(error))
        finite = np.where(np.isfinite(size[name]), size[name], 0)
        limit = 2 * worst + 8 * eps * finite
        if name in rounded_outputs(call):
            with np.errstate(all="ignore"):
                limit = limit + 2.0**-8 * (np.abs(truth) + limit) + 2.0**-134
        limits[name] = np.broadcast_to(limit, truth.shape)
    return limits


def judge(call: Call, outputs: dict[str, Array]) -> None:
    """Raises AssertionError unless the outputs are the reference's within the derived bound."""
    if not call.known:
        call.known = truth_and_limits(call)
    for name, got in outputs.items():
        want, limit = call.known["truth"][name], call.known["limits"].get(name)
        assert got.shape == want.shape, f"{name}: reference has shape {want.shape}, not {got.shape}"
        _judge_array(f"{call.kernel.name}: {name}", wide(got), want, limit)


def truth_and_limits(call: Call) -> dict[str, dict[str, Array]]:
    """The truth for every output, and the bound for those that are not exact."""
    plain, precise = reference_outputs(call, False), reference_outputs(call, True)
    missing = [n for n in call.names("out", "inout") if n not in precise]
    assert not missing, f"the reference of {call.kernel.name} gives no {missing}"
    exact = {n for n, a in precise.items() if a.dtype.kind in "iu" or call.kernel.exact}
    limits = bound(call, plain, {n: a for n, a in precise.items() if n not in exact})
    with np.errstate(all="ignore"):
        plain |= {n: wide(plain[n].astype(BF16)) for n in exact & rounded_outputs(call)}
    return {"truth": {n: (plain if n in exact else precise)[n] for n in precise}, "limits": limits}


def _judge_array(what: str, got: Array, want: Array, limit: Array | None) -> None:
    if limit is None:
        good = (got == want) | ((got != got) & (want != want))
        limit = np.zeros(want.shape)
    else:
        with np.errstate(all="ignore"):
            good = np.abs(got.astype(want.dtype) - want) <= limit
            same_inf = np.isinf(want) & (got == want)
        good = np.where(np.isfinite(want), good, np.isnan(want) & np.isnan(got) | same_inf)
    if np.all(good):
        return
    bad = np.argwhere(~good)
    at = tuple(int(i) for i in bad[0])
    raise AssertionError(
        f"{what}{list(at)} is {got[at]!r}, reference {want[at]!r}, bound {limit[at]:.3g}; "
        f"{len(bad)} of {got.size} elements are wrong"
    )


# ---- running a kernel ---------------------------------------------------------------------------


class Placed:
    """The arrays of a call inside bigger buffers, so that a step outside any of them shows.

    Guards of inputs are NaN (-1 for integers): reading them spoils the result.  Guards of outputs
    are compared after the call.  `offset`, in elements, moves the arrays off the 64-byte boundary.
    """

    def __init__(self, call: Call, offset: int = 0):
        self.call = call
        self._buffers: dict[str, Array] = {}
        self.arrays: dict[str, Array] = {}
        for name, array in call.arrays.items():
            self._place(name, array, offset * array.itemsize)
        self._before = {name: b.copy() for name, b in self._buffers.items()}

    def _place(self, name: str, array: Array, offset: int) -> None:
        buffer = np.full(array.nbytes + offset + 2 * GUARD_BYTES + 64, 0xFF, np.uint8)
        start = -buffer.ctypes.data % 64 + GUARD_BYTES + offset
        inside = buffer[start : start + array.nbytes]
        view = inside.view(array.dtype).reshape(array.shape)
        view[...] = array
        self._buffers[name], self.arrays[name] = buffer, view

    def _inside(self, name: str) -> slice:
        start = self.arrays[name].ctypes.data - self._buffers[name].ctypes.data
        return slice(start, start + self.arrays[name].nbytes)

    def run(self) -> dict[str, Array]:
        """Calls the kernel; copies of its outputs.  Raises AssertionError for stray writes."""
        invoke(self.call, self.arrays)
        self._check_memory()
        return {n: self.arrays[n].copy() for n in self.call.names("out", "inout")}

    def reset(self) -> None:
        for name, before in self._before.items():
            self._buffers[name][...] = before

    def _check_memory(self) -> None:
        kernel = self.call.kernel.name
        for name in self.call.names("in"):
            same = np.array_equal(self._buffers[name], self._before[name])
            assert same, f"{kernel} wrote into its input {name} or beside it"
        for name in self.call.names("out", "inout"):
            now, before = self._buffers[name].copy(), self._before[name].copy()
            now[self._inside(name)] = before[self._inside(name)] = 0
            assert np.array_equal(now, before), f"{kernel} wrote outside its output {name}"


def invoke(call: Call, arrays: Mapping[str, Array]) -> None:
    getattr(_core, call.kernel.name)(**arrays, **call.attributes)


def run(call: Call, threads: int = 1, offset: int = 0) -> dict[str, Array]:
    """Outputs of the call, with the memory checks of `Placed`."""
    _core.set_num_threads(threads)
    return Placed(call, offset).run()


def same_bits(a: Mapping[str, Array], b: Mapping[str, Array], what: str) -> None:
    """Raises AssertionError unless the arrays agree in every bit (a NaN is as good as another)."""
    assert a.keys() == b.keys()
    for name in a:
        x, y = a[name], b[name]
        equal = x.shape == y.shape and x.dtype == y.dtype and bits_equal(wide(x), wide(y))
        assert equal, f"{what}: {name} differs, first {_first_difference(x, y)}"


def bits_equal(x: Array, y: Array) -> bool:
    if x.tobytes() == y.tobytes():
        return True
    if x.dtype.kind != "f":
        return False
    same = (x == y) & (np.signbit(x) == np.signbit(y)) | np.isnan(x) & np.isnan(y)
    return bool(np.all(same))


def _first_difference(x: Array, y: Array) -> str:
    if x.shape != y.shape or x.dtype != y.dtype:
        return f"{x.dtype}{x.shape} against {y.dtype}{y.shape}"
    bad = np.argwhere((x != y) & ~((x != x) & (y != y)))
    at = tuple(int(i) for i in bad[0]) if len(bad) else ()
    return f"at {list(at)}: {x[at]!r} against {y[at]!r}, {len(bad)} elements"
