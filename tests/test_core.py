"""The core apart from any op: backends, thread counts, arguments, memory."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from fastdl import _core
from harness import CPU_BACKENDS
from subprocesses import last_line, python

f32 = np.float32


def affine(n: int = 4, m: int = 3, B: int = 2, dtype: Any = f32) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    X, W = rng.standard_normal((B, n)).astype(dtype), rng.standard_normal((n, m)).astype(dtype)
    return {"X": X, "W": W, "Y": np.zeros((B, m), dtype)}


# ---- backends -----------------------------------------------------------------------------------


def test_the_best_backend_is_first_and_active_by_default() -> None:
    here = _core.backends()
    assert CPU_BACKENDS[-1] == "generic" or _core.all_backends() == here
    assert here[: len(CPU_BACKENDS)] == CPU_BACKENDS  # the emulator is chosen by name only
    assert set(here) <= set(_core.all_backends())
    out = python("from fastdl import _core; print(_core.backend())").stdout
    assert out.strip() == here[0]


@pytest.mark.parametrize("name", _core.backends())
def test_backend_from_the_environment(name: str) -> None:
    out = python("from fastdl import _core; print(_core.backend())", FASTDL_BACKEND=name).stdout
    assert out.strip() == name


@pytest.mark.parametrize(
    "call", ["_core.backend()", "_core.relu_forward(np.ones(3), np.ones(3))", "_core.config()"]
)
def test_unknown_backend_in_the_environment(call: str) -> None:
    code = f"import numpy as np\nfrom fastdl import _core\n{call}"
    done = python(code, check=False, FASTDL_BACKEND="sse9")
    assert done.returncode == 1
    known = ", ".join(_core.all_backends())
    assert last_line(done.stderr) == (
        f"ValueError: FASTDL_BACKEND: backend must be one of {known}, got 'sse9'"
    )


def test_use_backend() -> None:
    for name in _core.backends():
        _core.use_backend(name)
        assert _core.backend() == name == _core.config()["backend"]
    with pytest.raises(ValueError, match=r"^use_backend: backend must be one of .*, got 'sse9'$"):
        _core.use_backend("sse9")
    assert _core.backend() == _core.backends()[-1]
    with pytest.raises(TypeError):
        _core.use_backend(3)


# ---- thread counts ------------------------------------------------------------------------------


def test_threads_from_the_environment() -> None:
    code = "from fastdl import _core; print(_core.get_num_threads())"
    assert python(code, FASTDL_NUM_THREADS="3").stdout.strip() == "3"
    assert python(code, FASTDL_NUM_THREADS="").stdout == python(code).stdout


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "100000", "3x"])
def test_wrong_threads_in_the_environment(value: str) -> None:
    code = "from fastdl import _core; _core.get_num_threads()"
    done = python(code, check=False, FASTDL_NUM_THREADS=value)
    assert last_line(done.stderr) == (
        f"ValueError: FASTDL_NUM_THREADS must be an integer in 1..256, got '{value}'"
    )


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone has an affinity mask")
def test_threads_from_the_affinity_mask() -> None:
    code = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        from fastdl import _core
        print(_core.get_num_threads())
    """
    assert python(code).stdout.strip() == "1"


@pytest.mark.parametrize("n", [0, -1, 257, 2**40])
def test_set_num_threads_refuses(n: int) -> None:
    before = _core.get_num_threads()
    with pytest.raises(ValueError, match=rf"^set_num_threads: n must be in 1\.\.256, got {n}$"):
        _core.set_num_threads(n)
    assert _core.get_num_threads() == before


@pytest.mark.parametrize("n", [1.5, "2", None, 10**30])
def test_set_num_threads_takes_an_integer(n: object) -> None:
    with pytest.raises(TypeError):
        _core.set_num_threads(n)


@pytest.mark.parametrize("n", [0, -5])
@pytest.mark.parametrize("name", ["set_work_per_thread", "set_stream_bytes"])
def test_thresholds_refuse(name: str, n: int) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: n must be .*got {n}$"):
        getattr(_core, name)(n)


def test_set_num_threads() -> None:
    for n in (1, 2, 256):
        _core.set_num_threads(n)
        assert _core.get_num_threads() == n == _core.config()["num_threads"]


# ---- arguments ----------------------------------------------------------------------------------


def test_arguments_by_position_are_those_by_name() -> None:
    a = affine()
    by_name = a["Y"].copy()
    _core.affine_forward(X=a["X"], W=a["W"], b=None, Y=by_name, activation="relu")
    _core.affine_forward(a["X"], a["W"], None, a["Y"], "relu")
    assert np.array_equal(a["Y"], by_name)


def test_too_many_arguments() -> None:
    a = affine()
    names = "X, W, b, Y, activation, precision"
    text = f"^affine_forward: too many positional arguments; it takes {names}$"
    with pytest.raises(TypeError, match=text):
        _core.affine_forward(a["X"], a["W"], None, a["Y"], "none", "full", 1)


def test_subclasses_and_memory_maps_are_arrays(tmp_path: Any) -> None:
    class Named(np.ndarray):
        pass

    a = affine()
    mapped = np.memmap(tmp_path / "y", f32, "w+", shape=(2, 3))
    _core.affine_forward(a["X"].view(Named), a["W"], None, mapped)
    _core.affine_forward(**a)
    assert np.array_equal(mapped, a["Y"])


def test_sizes_are_64_bit() -> None:
    """Strides beyond 2^31 elements; a broadcast needs no memory."""
    X = np.broadcast_to(f32(1), (1, 2**33))
    with pytest.raises(ValueError, match=r"W must be float32\(n m\) with n = 8589934592 \(from X"):
        _core.affine_forward(np.lib.stride_tricks.as_strided(X, strides=(4, 4)), **{
            k: v for k, v in affine().items() if k != "X"})  # fmt: skip


def test_seven_dimensions_are_too_many() -> None:
    X = np.zeros((1,) * 7, f32)
    with pytest.raises(ValueError, match=r"X must have at most 6 dimensions, got 7; reshape it"):
        _core.relu_forward(X, X.copy())


# ---- the interpreter's resources ----------------------------------------------------------------


def resident_bytes() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def bad_call(a: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        _core.affine_forward(a["X"], a["X"], None, a["Y"])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_calls_leak_neither_memory_nor_references() -> None:
    a = affine()

    def work(n: int) -> None:
        for _ in range(n):
            _core.affine_forward(**a, activation="relu")
        for _ in range(n // 20):
            bad_call(a)
            program = _core.Program([a["X"]])
            program.begin()
            _core.affine_forward(**a)
            program.end()
            program.run([a["X"]])

    work(2000)
    gc.collect()
    references, memory = [sys.getrefcount(v) for v in a.values()], resident_bytes()
    work(100_000)
    gc.collect()
    assert [sys.getrefcount(v) for v in a.values()] == references
    assert resident_bytes() - memory < 2_000_000


def test_other_python_threads_run_during_a_big_call() -> None:
    a = affine(n=1024, m=1024, B=512)
    _core.set_num_threads(1)
    ticks, stop = [0], threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks[0] += 1
            time.sleep(0.0005)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        during = []
        for _ in range(10):
            before = ticks[0]
            _core.affine_forward(**a)  # some ten milliseconds
            during.append(ticks[0] - before)
    finally:
        stop.set()
        thread.join()
    assert max(during) >= 3, f"ticks during calls: {during}"


def test_many_python_threads_at_once() -> None:
    a = affine(n=300, m=200, B=100)
    _core.set_num_threads(2)
    _core.affine_forward(**a)
    wrong: list[int] = []

    def work(i: int) -> None:
        Y = np.empty_like(a["Y"])
        for _ in range(30):
            Y[...] = np.nan
            _core.affine_forward(a["X"], a["W"], None, Y)
            if Y.tobytes() != a["Y"].tobytes():
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


FORK = """
    import os, sys, threading, time
    import numpy as np
    from fastdl import _core

    _core.set_num_threads(2)
    rng = np.random.default_rng(0)
    X, W = (rng.standard_normal((400, 400)).astype("f") for _ in range(2))

    def product():
        Y = np.empty((400, 400), "f")
        _core.affine_forward(X, W, None, Y)
        return Y.tobytes()

    want = product()

    def child(_=0):
        for _ in range(3):
            if product() != want:
                return 1
        tasks = "/proc/self/task"  # the child has threads of its own again
        return 2 if os.path.isdir(tasks) and len(os.listdir(tasks)) < 2 else 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("busy", [False, True], ids=["quiet", "while another thread computes"])
def test_fork_after_threads_were_used(busy: bool) -> None:
    code = (
        FORK
        + f"""
    if {busy}:
        threading.Thread(target=lambda: [product() for _ in range(10**6)], daemon=True).start()
    for _ in range(10):
        pid = os.fork()
        if pid == 0:
            os._exit(child())
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
        assert product() == want
    os._exit(0)
    """
    )
    python(code)


@pytest.mark.parametrize("captured", [False, True], ids=["eager", "captured"])
def test_a_process_ends_while_a_daemon_thread_computes(captured: bool) -> None:
    code = f"""
        import threading
        import fastdl as fd
        import numpy as np

        x = np.ones((300, 300), np.float32)
        relu = fd.capture(lambda a: fd.ops.relu(a)) if {captured} else fd.ops.relu
        relu(x)
        under_way = threading.Event()

        def compute():
            while True:
                relu(x)
                under_way.set()

        threading.Thread(target=compute, daemon=True).start()
        under_way.wait()
    """
    for _ in range(3):
        python(code)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_multiprocessing_by_fork() -> None:
    code = (
        FORK
        + """
    import multiprocessing
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(child, range(6)) == [0] * 6
    """
    )
    python(code)


def test_exit_with_sleeping_and_spinning_workers() -> None:
    python(FORK)
    python(FORK + "    time.sleep(0.05)")
