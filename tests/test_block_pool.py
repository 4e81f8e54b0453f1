"""Memory of large results: reused when an array dies, never before, and bounded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import fastdl as fd
import numpy as np
import pytest
from fastdl import _core
from opcase import Array
from subprocesses import last_line, python

MIB = 1 << 20
LIKE = np.empty(0, np.float32)


@pytest.fixture(autouse=True)
def empty_pool() -> Iterator[None]:
    """Begin with an empty pool; other tests keep their limit."""
    before = _core.config()["pool_bytes"]
    fd.set_pool_bytes(64 * MIB)
    fd.empty_pool()
    yield
    fd.set_pool_bytes(before)


def new(n_bytes: int) -> Array:
    return _core.empty(LIKE, n_bytes // 4, np.dtype(np.float32))


def pooled() -> int:
    held: int = _core.config()["pooled_bytes"]
    return held


def test_a_dead_array_gives_its_memory_to_the_next() -> None:
    a = new(MIB)
    address = a.ctypes.data
    del a
    assert pooled() == MIB
    b = new(MIB)
    assert b.ctypes.data == address
    assert pooled() == 0


def test_the_last_one_used_comes_first() -> None:
    a, b = new(MIB), new(MIB)
    address = a.ctypes.data
    del b
    del a
    assert new(MIB).ctypes.data == address


def test_a_block_has_at_most_a_quarter_to_spare() -> None:
    address = new(5 * MIB).ctypes.data
    assert new(5 * MIB + 4096).ctypes.data != address
    assert new(4 * MIB - 4096).ctypes.data != address
    assert new(4 * MIB).ctypes.data == address


def test_small_arrays_stay_with_numpy() -> None:
    a = new(128 * 1024)
    assert a.base is None
    del a
    assert pooled() == 0


def test_blocks_start_at_a_line_and_at_different_places_of_a_page() -> None:
    arrays = [new(MIB) for _ in range(4)]
    places = [a.ctypes.data % 4096 for a in arrays]
    assert all(place % 64 == 0 for place in places)
    apart = {abs(p - q) for i, p in enumerate(places) for q in places[:i]}
    assert not apart & {0, 64, 128, 256, 512, 1024, 2048}


def test_arrays_are_like_those_of_numpy() -> None:
    a = _core.empty(LIKE, (3, 5, 70_000), np.dtype(np.float64))
    assert a.flags.carray
    assert a.shape == (3, 5, 70_000)
    assert a.dtype == np.float64
    a[...] = 1.5
    assert a.sum() == 1.5 * a.size


def test_an_array_that_was_made_read_only_can_be_written_again() -> None:
    a = new(MIB)
    view = a[1:]
    for x in (a, view):
        x.flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            x[0] = 1
    for x in (a, view):
        x.flags.writeable = True
        x[0] = 2
    assert (a[:2] == 2).all()


@pytest.mark.parametrize("make", [lambda a: a[7:], lambda a: a.reshape(2, -1).T, memoryview])
def test_a_view_keeps_the_memory(make: object) -> None:
    a = new(MIB)
    a[...] = np.arange(a.size)
    wanted = a.copy()
    view = make(a)  # type: ignore[operator]
    wanted = np.asarray(make(wanted))  # type: ignore[operator]
    del a
    assert pooled() == 0
    for _ in range(3):
        new(MIB)[...] = -1
    assert np.array_equal(np.asarray(view), wanted)
    del view
    assert pooled() == 2 * MIB


def test_results_and_gradients_come_from_the_pool() -> None:
    X, W = fd.tensor(np.ones((512, 512), np.float32)), np.ones((512, 512), np.float32)
    weight = fd.tensor(W, requires_grad=True)
    for _ in range(2):
        weight.grad = None
        fd.ops.affine(X, weight).sum().backward()
    assert 0 < pooled() <= 4 * MIB
    assert weight.grad is not None
    assert np.array_equal(weight.grad, 512 * W)


def test_results_of_a_captured_step_come_from_the_pool() -> None:
    X = np.ones((512, 512), np.float32)
    step = fd.capture(lambda a: fd.ops.relu(a))
    step(X)
    result = step(X)
    fd.empty_pool()
    del result
    assert pooled() == MIB


def test_the_limit_holds_and_the_oldest_goes_first() -> None:
    sizes = [MIB, 2 * MIB, 4 * MIB, 8 * MIB]
    arrays = [new(n) for n in sizes]
    places = [a.ctypes.data for a in arrays]
    fd.set_pool_bytes(13 * MIB)
    while arrays:
        del arrays[0]
    assert pooled() == 12 * MIB
    assert new(8 * MIB).ctypes.data == places[3]
    fd.set_pool_bytes(8 * MIB)
    assert pooled() == 8 * MIB
    fd.empty_pool()
    assert pooled() == 0
    new(8 * MIB + 4096)
    assert pooled() == 0


def test_zero_keeps_nothing() -> None:
    a = new(MIB)
    fd.set_pool_bytes(0)
    del a
    assert pooled() == 0
    new(MIB)[...] = 1


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^set_pool_bytes: n_bytes must not be negative, got -1$"):
        fd.set_pool_bytes(-1)
    assert _core.config()["pool_bytes"] == 64 * MIB


@pytest.mark.parametrize("shape", [1 << 60, (1 << 40, 1 << 40), -(1 << 20)])
def test_impossible_shapes(shape: int | tuple[int, ...]) -> None:
    with pytest.raises((MemoryError, ValueError)):
        _core.empty(LIKE, shape, np.dtype(np.float32))


@pytest.mark.parametrize("shape", [1 << 60, (1 << 61) - 1])
def test_without_memory_the_shape_is_told(shape: int) -> None:
    with pytest.raises(MemoryError, match=rf"^Unable to allocate .* shape \({shape},\)"):
        _core.empty(LIKE, shape, np.dtype(np.float32))


def test_many_blocks_are_returned_in_time_that_grows_with_their_number() -> None:
    fd.set_pool_bytes(4096 * MIB)

    def seconds(n: int) -> float:
        arrays = [new(MIB // 4) for _ in range(n)]
        arrays.clear()
        start = time.perf_counter()
        fd.empty_pool()
        return time.perf_counter() - start

    assert min(seconds(16384) for _ in range(3)) < 20 * min(seconds(2048) for _ in range(3))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of address space")
def test_an_array_that_dies_when_there_is_no_memory_at_all() -> None:
    code = """
        import ctypes, resource
        import numpy as np
        from fastdl import _core

        malloc = ctypes.CDLL(None).malloc
        malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
        array = _core.empty(np.empty(0, np.float32), 1 << 20, np.dtype(np.float32))
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (1 << 20, hard))
        for n in (1 << 20, 1 << 12, 512, 80, 48, 24):
            while malloc(n):
                pass
        del array
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        print(_core.config()["pooled_bytes"])
    """
    assert python(code).stdout == "0\n"


def test_show_config() -> None:
    del_me = new(MIB)
    del del_me
    assert f"pool_bytes: {64 * MIB}\npooled_bytes: {MIB}\n" in fd.show_config()


def test_threads_never_share_a_block() -> None:
    wrong = []

    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        held: list[tuple[Array, int]] = []
        for i in range(200):
            a = new(int(rng.integers(256 * 1024, MIB)))
            a[...] = value = 1000 * number + i
            held.append((a, value))
            if len(held) > 3:
                old, wanted = held.pop(int(rng.integers(4)))
                wrong.extend([number] * int((old != wanted).any()))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert pooled() <= 64 * MIB


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_has_a_pool_of_its_own() -> None:
    code = """
        import os, threading, warnings
        import numpy as np
        from fastdl import _core

        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads
        like, dtype = np.empty(0, np.float32), np.dtype(np.float32)
        stop = threading.Event()

        def churn():
            while not stop.is_set():
                _core.empty(like, 1 << 18, dtype)

        thread = threading.Thread(target=churn)
        thread.start()
        kept = _core.empty(like, 1 << 20, dtype)
        kept[...] = 1
        for _ in range(50):
            child = os.fork()
            if child == 0:
                for n in (1 << 18, 1 << 20):
                    _core.empty(like, n, dtype)[...] = 2
                kept[...] = 3
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        thread.join()
        assert (kept == 1).all()
        print("done")
    """
    assert python(code).stdout == "done\n"


def test_limit_from_the_environment() -> None:
    code = "from fastdl import _core; print(_core.config()['pool_bytes'])"
    assert python(code, FASTDL_POOL_BYTES="12345").stdout == "12345\n"
    assert python(code, FASTDL_POOL_BYTES="0").stdout == "0\n"
    assert 0 < int(python(code, FASTDL_POOL_BYTES="").stdout) <= 1 << 30


@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_the_limit_of_a_container(file: str) -> None:
    """A file system of our own in place of the cgroups."""
    path = "/sys/fs/cgroup/" + file
    inside = f"mount -t tmpfs none /sys/fs/cgroup && mkdir -p {os.path.dirname(path)}"
    private = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*private, inside], check=False).returncode:
        pytest.skip("this process may not mount")
    code = "from fastdl import _core; print(_core.config()['pool_bytes'])"
    inside += f' && echo {256 * MIB} > {path} && exec {sys.executable} -c "{code}"'
    done = subprocess.run([*private, inside], capture_output=True, text=True, check=True)
    assert done.stdout == f"{64 * MIB}\n"


@pytest.mark.parametrize("value", ["-1", "1G", "1e9", "9" * 30])
def test_wrong_limit_in_the_environment(value: str) -> None:
    code = "from fastdl import _core; _core.config()"
    done = python(code, check=False, FASTDL_POOL_BYTES=value)
    assert last_line(done.stderr) == (
        f"ValueError: FASTDL_POOL_BYTES must be an integer in 0..{2**63 - 1}, got '{value}'"
    )
