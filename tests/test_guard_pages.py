"""No kernel touches memory beyond its arrays: they are laid against pages that nobody may touch.

A stray access kills the process, so each backend runs in one of its own, which says where it was.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fastdl import _core
from harness import DTYPES, Call, build, invoke, kernels
from opcase import Array

PAGE = mmap.PAGESIZE
SMALL = 100_000


def between_guard_pages(array: Array, at_end: bool) -> Array:
    """A copy of `array` that ends, or starts, at a page without access."""
    inner = -(-max(array.nbytes, 1) // PAGE) * PAGE
    memory = mmap.mmap(-1, inner + 2 * PAGE)
    raw = np.frombuffer(memory, np.uint8)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for page in (0, PAGE + inner):
        if protect(raw.ctypes.data + page, PAGE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    start = PAGE + (inner - array.nbytes if at_end else 0)
    view = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def run_between_guard_pages(call: Call) -> None:
    for at_end in (True, False):
        arrays = {n: between_guard_pages(a, at_end) for n, a in call.arrays.items()}
        print(f"{call.kernel.name} {call.case!r} {call.dtype} at_end={at_end}", flush=True)
        invoke(call, arrays)


def main(backend: str) -> None:
    _core.use_backend(backend)
    for kernel in kernels():
        if kernel.name not in _core.kernels(backend):
            continue
        for case in kernel.cases:
            for dtype in filter(functools.partial(kernel.admits, case), DTYPES):
                call = build(kernel, case, dtype)
                if sum(a.size for a in call.arrays.values()) < SMALL:
                    run_between_guard_pages(call)


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, __file__, *arguments],
        cwd=Path(__file__).parent, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.skipif(not hasattr(mmap, "PROT_READ"), reason="needs POSIX memory protection")
@pytest.mark.parametrize("backend", _core.backends())
def test_no_access_beyond_the_arrays(backend: str) -> None:
    done = run_script(backend)
    last = done.stdout.strip().splitlines()[-1:]
    assert done.returncode == 0, f"{last} ended with {done.returncode}: {done.stderr[-2000:]}"


@pytest.mark.skipif(not hasattr(mmap, "PROT_READ"), reason="needs POSIX memory protection")
@pytest.mark.parametrize("where", ["before", "behind"])
def test_guard_pages_stop_an_access(where: str) -> None:
    assert run_script("stray", where).returncode < 0


def stray_access(where: str) -> None:
    array = between_guard_pages(np.zeros(5, np.float32), at_end=where == "behind")
    address = array.ctypes.data + (array.nbytes if where == "behind" else -1)
    ctypes.string_at(address, 1)


if __name__ == "__main__":
    if sys.argv[1] == "stray":
        stray_access(sys.argv[2])
    else:
        main(sys.argv[1])
