"""Write the type stub of the compiled module: ``python -m fastdl._stubs [--check]``.

Every kernel's signature is read from the op's own description in C++ (``_core.signatures()``), so
the stub cannot drift from the code; the few other names of the module are listed in `REST`.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastdl import _core

WIDTH = 100
PATH = Path(__file__).with_name("_core.pyi")

HEAD = '''\
"""The compiled kernels.  Written by ``python -m fastdl._stubs``; do not edit.

Arguments go by position or by name.  "X (B n)" is an array of shape (B, n): equal letters are equal
sizes, "*" is any shape, "()" a 0-d array, "?" may be None.  What stands right of the arrow is
written; "+=" reads it first.  Lines below that list the values of an option.

Arrays are C-contiguous, and all `Real` ones of a call share one dtype, as do all `Stored` ones: the
same, or on a device bfloat16 beside float32.  A wrong shape or value raises ValueError, a wrong
dtype or an unknown name TypeError; nothing has been written then.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

Real: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Stored: TypeAlias = npt.NDArray[Any]
Index: TypeAlias = npt.NDArray[np.int32] | npt.NDArray[np.int64]
Int64: TypeAlias = npt.NDArray[np.int64]
Float64: TypeAlias = npt.NDArray[np.float64]
UInt8: TypeAlias = npt.NDArray[np.uint8]
AnyArray: TypeAlias = npt.NDArray[Any]
'''

REST = '''\
class Program:
    """A recorded sequence of kernel calls that replays natively.

    The inputs are private static buffers; `run` binds other arrays in their place, without a copy.
    Recording is per thread: kernel calls between `begin` and `end` or `finish` are run and
    recorded.  `finish` takes the arrays that every run hands out anew, and returns (array, line)
    for those that would be frozen.
    """

    def __init__(self, inputs: Sequence[AnyArray]) -> None: ...
    def begin(self, where: Callable[[], str] | None = None) -> None: ...
    def end(self) -> None: ...
    def abort(self) -> None: ...
    def finish(self, results: list[AnyArray]) -> list[tuple[AnyArray, str]]: ...
    def run(self, inputs: Sequence[AnyArray]) -> list[AnyArray]: ...
    def run_steps(
        self,
        sources: Sequence[AnyArray],
        scales: Sequence[float],
        order: Int64 | None,
        first: int,
        count: int,
        schedules: list[tuple[Float64, Float64]],
        stop: npt.NDArray[np.uint8],
    ) -> tuple[int, list[AnyArray], BaseException | None]: ...
    def calls(self) -> list[dict[str, Any]]: ...
    def memory(self) -> dict[str, int]: ...
    def written(self) -> list[tuple[int, str]]: ...
    def snapshot(self) -> list[bytes]: ...
    def restore(self, snapshot: list[bytes]) -> None: ...
    def __len__(self) -> int: ...

class DeviceArray(np.ndarray[Any, np.dtype[Any]]):
    """Has the attributes and views of an ndarray, but its elements are on a device."""

    @property
    def pointer(self) -> int: ...
    def strided(self, shape: Sequence[int], strides: Sequence[int]) -> DeviceArray: ...
    def write(self, values: AnyArray, non_blocking: bool) -> None: ...
    def numpy(self) -> AnyArray: ...

def make_replay(
    program: Program, guards: list[tuple[Any, str, Any]], finals: list[tuple[Any, str, Any]]
) -> Callable[..., Any]: ...
def make_replay_all(members: list[tuple[Any, ...]]) -> Callable[..., Any]: ...
def run_all(
    programs: list[Program], steps: list[tuple[Any, ...]], count: int
) -> list[AnyArray]: ...
def empty(like: AnyArray, shape: int | tuple[int, ...], dtype: np.dtype[Any], /) -> AnyArray: ...
def empty_on(device: str, shape: Sequence[int], dtype: np.dtype[Any]) -> DeviceArray: ...
def pinned_empty(device: str, shape: Sequence[int], dtype: np.dtype[Any]) -> AnyArray: ...
def device_named(name: str) -> str: ...
def synchronize(device: str) -> None: ...
def stream(device: str) -> int: ...
def cuda_status() -> dict[str, Any]: ...
def dlpack_device(array: DeviceArray) -> tuple[int, int]: ...
def dlpack_name(kind: int, number: int) -> str: ...
def to_dlpack(array: DeviceArray, stream: int | None, versioned: bool) -> Any: ...
def from_dlpack(capsule: Any) -> DeviceArray: ...
def from_interface(
    device: str,
    pointer: int,
    readonly: bool,
    shape: Sequence[int],
    strides: Sequence[int] | None,
    dtype: np.dtype[Any],
    stream: int | None,
    owner: Any,
) -> DeviceArray: ...
def recording() -> bool: ...
def op_names() -> list[str]: ...
def signatures() -> dict[str, list[dict[str, Any]]]: ...
def backend() -> str: ...
def backends() -> list[str]: ...
def all_backends() -> list[str]: ...
def kernels(backend: str) -> list[str]: ...
def use_backend(name: str) -> None: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def set_work_per_thread(n: int) -> None: ...
def set_stream_bytes(n: int) -> None: ...
def set_pool_bytes(n_bytes: int) -> None: ...
def empty_pool() -> None: ...
def use_bf16_unit(most: str) -> None: ...
def config() -> dict[str, Any]: ...
def ceilings() -> dict[str, Any]: ...
'''

KINDS = {
    "real": "Real",
    "index": "Index",
    "i64": "Int64",
    "f64": "Float64",
    "u8": "UInt8",
    "any": "AnyArray",
    "stored": "Stored",
    "cast": "AnyArray",
}

Argument = Mapping[str, Any]


def is_array(argument: Argument) -> bool:
    """Whether it is an array; the others are attributes."""
    return "dims" in argument


def annotation(argument: Argument) -> str:
    """Return the type of an argument, e.g. ``Real | None``."""
    if is_array(argument):
        return KINDS[argument["kind"]] + (" | None" if argument["optional"] else "")
    return type(argument["default"]).__name__


def quoted(value: object) -> str:
    """Like repr, with double quotes around strings."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def parameter(argument: Argument, *, with_default: bool) -> str:
    """Return one line of the parameter list."""
    text = f"{argument['name']}: {annotation(argument)}"
    if not is_array(argument):
        return f"{text} = {quoted(argument['default'])}"
    return f"{text} = None" if with_default and argument["optional"] else text


def last_required(arguments: Sequence[Argument]) -> int:
    """Return the position of the last array that must be given."""
    return max(i for i, a in enumerate(arguments) if is_array(a) and not a["optional"])


def positional(arguments: Sequence[Argument]) -> list[str]:
    """Parameters in call order; None must be spelled out before a required array."""
    last = last_required(arguments)
    return [parameter(a, with_default=i > last) for i, a in enumerate(arguments)]


def by_name(arguments: Sequence[Argument], first_optional: int) -> list[str]:
    """Parameters where optional arrays may be left out: from there on all go by name."""
    head, tail = arguments[:first_optional], arguments[first_optional:]
    return [
        *(parameter(a, with_default=True) for a in head),
        "*",
        *(parameter(a, with_default=True) for a in tail),
    ]


def mentioned(argument: Argument) -> str:
    """Return e.g. ``b (m)?`` or ``theta (P) +=``."""
    dims = argument["dims"]
    reads = " +=" if argument["role"] == "inout" else ""
    return f"{argument['name']} ({dims}){'?' if argument['optional'] else ''}{reads}"


def summary(arguments: Sequence[Argument]) -> list[str]:
    """Return the docstring's lines, e.g. ``X (B n), W (n m), b (m)? -> Y (B m)``."""
    arrays = [a for a in arguments if is_array(a)]
    reads = ", ".join(mentioned(a) for a in arrays if a["role"] == "in")
    writes = "-> " + ", ".join(mentioned(a) for a in arrays if a["role"] != "in")
    text = f"{reads} {writes}".strip()
    lines = [text] if len(text) < WIDTH - 10 else [reads, *textwrap.wrap(writes, WIDTH - 10)]
    choices = [f"{a['name']}: {' '.join(a['choices'])}" for a in arguments if "choices" in a]
    return [*lines, *choices]


def definition(name: str, parameters: Sequence[str], doc: Sequence[str]) -> str:
    """Return one function, laid out as ruff does."""
    close = "\n    " if len(doc) > 1 else ""
    body = '    """' + "\n    ".join(doc) + close + '"""\n\n' if doc else ""
    end = "-> None:" if doc else "-> None: ..."
    line = f"def {name}({', '.join(parameters)}) {end}\n"
    if len(line) <= WIDTH + 1:
        return line + body
    return f"def {name}(\n" + "".join(f"    {p},\n" for p in parameters) + f") {end}\n" + body


def function(name: str, arguments: Sequence[Argument]) -> str:
    """Return the stub of one kernel, overloaded if optional arrays precede required ones."""
    doc = summary(arguments)
    optional = [i for i, a in enumerate(arguments) if is_array(a) and a["optional"]]
    if not optional or optional[0] > last_required(arguments):
        return definition(name, positional(arguments), doc)
    first = definition(name, positional(arguments), doc)
    second = definition(name, by_name(arguments, optional[0]), [])
    return f"@overload\n{first}@overload\n{second}"


def stub() -> str:
    """Return the whole file."""
    functions = [function(name, args) for name, args in sorted(_core.signatures().items())]
    text = HEAD + "\n" + "".join(functions).strip() + "\n\n" + REST
    listed = set(re.findall(r"(?:def|class) ([a-zA-Z]\w*)", text))
    own = set(dir(_core.DeviceArray)) - set(dir(np.ndarray))
    there = {n for n in [*dir(_core), *dir(_core.Program), *own] if not n.startswith("_")}
    if odd := listed ^ there:
        raise SystemExit(f"stubs: REST in {Path(__file__).name} must be like _core: {sorted(odd)}")
    return text


def main(arguments: Sequence[str]) -> int:
    """Write the stub, or with ``--check`` say whether it is up to date."""
    if list(arguments) not in ([], ["--check"]):
        print("usage: python -m fastdl._stubs [--check]", file=sys.stderr)
        return 2
    text = stub()
    if not arguments:
        PATH.write_text(text)
        return 0
    if PATH.is_file() and PATH.read_text() == text:
        return 0
    print(f"stubs: {PATH.name} is out of date; run ./dev stubs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
