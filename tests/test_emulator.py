"""The emulator of CUDA notices what it is for: each kernel of cuda/planted.cu breaks one rule.

The kernels are compiled here, by the host compiler, with the emulator's own sources.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fastdl import _core
from harness import (
    CPU_BACKENDS,
    DTYPES,
    EMULATED_SIZE,
    EMULATOR,
    bits_equal,
    build,
    emulated,
    kernels,
    same_bits,
)
from harness import run as run_call
from opcase import Kernel

ROOT = Path(__file__).resolve().parent.parent
COMPILER = (
    os.environ.get("CXX", "").split()
    or [name for name in ("c++", "g++", "clang++") if shutil.which(name)][:1]
)
EMULATOR_SOURCES = ("device_memory", "fiber", "machine", "shared_memory", "switch")
RIGHT = "2080"  # 1 + 2 + ... + 64


def compiled(folder: Path, *options: str, emulator_options: tuple[str, ...] | None = None) -> Path:
    """The planted kernels with the emulator, whose own sources may have other options."""
    if not COMPILER:
        pytest.skip("needs a C++ compiler")
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("the emulator runs on Linux on x86-64 and aarch64")
    program = folder / "planted"
    sources = [f"csrc/cuda/emulator/{n}.cpp" for n in EMULATOR_SOURCES]
    command = [*COMPILER, "-std=c++20", "-O1", "-g", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]
    command += ["-Icsrc"]
    if emulator_options is not None:
        run_compiler(
            [*command, *emulator_options, "-r", "-nostdlib", "-o", str(folder / "em.o"), *sources]
        )
        sources = [str(folder / "em.o")]
    run_compiler(
        [*command, *options, "-o", str(program), *sources, "-x", "c++", "tests/cuda/planted.cu"]
    )
    return program


def run_compiler(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("planted"))


def run(program: Path, *names: str, seed: str = "0") -> list[str]:
    """What each of the kernels says."""
    environment = {**os.environ, "FASTDL_CUEMU_SHUFFLE": seed}
    done = subprocess.run(
        [program, *names], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert [name for name, _ in lines] == list(names)
    return [said for _, said in lines]


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_sound_kernels_are_right_in_any_order(planted: Path, seed: str) -> None:
    sound = ["tree", "shuffles", "copies", "cluster_sum", "cluster_read", "cluster_copy", "dynamic"]
    assert run(planted, *sound, seed=seed) == [RIGHT] * len(sound)


@pytest.mark.parametrize("kernel", ["missing_barrier", "missing_wait", "cluster_missing_wait"])
@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_a_missing_barrier_or_wait_spoils_the_result(planted: Path, seed: str, kernel: str) -> None:
    assert run(planted, kernel, seed=seed) != [RIGHT]


@pytest.mark.parametrize("kernel", ["write_before_start", "read_before_write", "read_after_end"])
def test_shuffled_blocks_of_a_cluster_miss_a_barrier(planted: Path, kernel: str) -> None:
    said = [run(planted, kernel, seed=str(seed)) for seed in range(1, 9)]
    assert said.count(["nan"]) + said.count(["-nan"]) >= 2


@pytest.mark.parametrize(
    "kernel, parts",
    [
        ("divergent_barrier", ["deadlock", "threads 0-23 wait at planted.cu:", "24-63 have ended"]),
        ("different_barriers", ["meet at different lines", "planted.cu:"]),
        ("divergent_shuffle", ["deadlock", "1, 3, 5, ", "wait at reduce.cuh:", "have ended"]),
        ("foreign_mask", ["mask must name the calling lane"]),
        ("write_behind", ["out-of-bounds write to shared memory 'first': byte 32 of 32"]),
        ("cluster_write_behind", ["write to shared memory 'first': byte 32 of 32", "block 3"]),
        ("write_before", ["out-of-bounds write to shared memory 'first': byte -"]),
        ("too_much", ["shared memory 'shared' does not fit"]),
        ("too_many_threads", ["1 to 1024 threads", "got 1025"]),
        ("copy_left_alone", ["planted.cu:", "ended before it waited for its copy"]),
        ("misaligned_copy", ["4, 8 or 16 bytes, aligned", "got 16 bytes"]),
        ("absent_rank", ["rank of a block of the cluster, got rank 4 in a cluster of 4"]),
        (
            "cluster_barrier_of_some",
            ["block 0: threads 0-63 wait", "in block 1: threads 0-63 have"],
        ),
        ("divided_cluster", ["1 to 8 blocks and divide the grid, got 4 of 6"]),
        ("dynamic_too_small", ["out-of-bounds write to shared memory 'shared_bytes': byte 240"]),
    ],
)
@pytest.mark.parametrize("seed", ["0", "1"])
def test_a_broken_rule_is_an_error(planted: Path, kernel: str, parts: list[str], seed: str) -> None:
    (said,) = run(planted, kernel, seed=seed)
    assert said.startswith("error ")
    for part in parts:
        assert part in said


def test_what_nobody_has_written_is_nan(planted: Path) -> None:
    assert all(math.isnan(float(said)) for said in run(planted, "uninitialised", "absent_lane"))


def test_a_seed_shuffles_the_blocks(planted: Path) -> None:
    assert len({run(planted, "order_of_blocks", seed=str(seed))[0] for seed in range(6)}) > 2
    assert run(planted, "order_of_blocks", seed="0") == ["247"]


def test_a_failed_launch_does_not_spoil_the_next(planted: Path) -> None:
    said = run(
        planted, "divergent_barrier", "tree", "write_behind", "shuffles", "foreign_mask", "tree",
        "cluster_barrier_of_some", "cluster_sum", "copy_left_alone", "copies",
    )  # fmt: skip
    assert said[1::2] == [RIGHT] * 5


def test_the_sanitizers_see_the_very_access(tmp_path: Path) -> None:
    program = compiled(tmp_path, "-fsanitize=address,undefined")
    assert run(program, "tree", "shuffles", "divergent_barrier", "tree")[::3] == [RIGHT] * 2
    done = subprocess.run([program, "write_behind"], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "planted.cu" in done.stderr
    assert "use-after-poison" in done.stderr


def test_thread_sanitizer_sees_races_that_leave_the_values_right(
    planted: Path, tmp_path: Path
) -> None:
    assert run(planted, "write_after_read") == [RIGHT]
    fixed = ["setarch", platform.machine(), "-R"]  # its shadow memory needs fixed addresses
    if not shutil.which("setarch") or subprocess.run([*fixed, "true"], check=False).returncode:
        pytest.skip("needs setarch -R")
    program = compiled(tmp_path, "-fsanitize=thread", emulator_options=("-DFASTDL_TSAN",))

    def check(*names: str) -> subprocess.CompletedProcess[str]:
        command = [*fixed, str(program), *names]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    sound = ["sound_write_after_read", "tree", "shuffles", "copies", "cluster_sum", "cluster_read"]
    done = check(*sound, "divergent_barrier", "cluster_sum")  # what failed leaves no trace
    assert done.returncode == 0, done.stderr
    for kernel in ("write_after_read", "read_before_write"):
        done = check(kernel)
        assert done.returncode != 0
        assert "data race" in done.stderr and "planted.cu:" in done.stderr


# ---- the backend --------------------------------------------------------------------------------

needs_backend = pytest.mark.skipif(
    EMULATOR not in _core.backends(), reason="built without FASTDL_CUEMU"
)


@needs_backend
def test_an_op_without_a_cuda_kernel_says_so() -> None:
    missing = sorted(set(_core.op_names()) - emulated())
    if "affine_forward" not in missing:
        pytest.skip("affine_forward has a kernel")
    _core.use_backend(EMULATOR)
    X, W, Y = np.ones((2, 3)), np.ones((3, 4)), np.full((2, 4), 7.0)
    with pytest.raises(RuntimeError) as error:
        _core.affine_forward(X, W, Y=Y)
    assert str(error.value) == (
        "affine_forward: backend 'cuemu' has no CUDA kernel yet; choose another by use_backend()"
    )
    assert np.all(Y == 7)


@needs_backend
def test_the_emulator_has_no_ceilings() -> None:
    _core.use_backend(EMULATOR)
    with pytest.raises(RuntimeError, match=r"^ceilings: backend 'cuemu' has none"):
        _core.ceilings()


@needs_backend
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", ["tanh_forward", "relu_forward", "dropout_forward"])
def test_element_wise_kernels_have_the_bits_of_the_cpu(kernel: str, dtype: type) -> None:
    """The formulas and the generator are shared; the CPU needs fused multiply-add for it."""
    fma = [name for name in CPU_BACKENDS if name != "generic"]
    if not fma:
        pytest.skip("no backend with fused multiply-add here")
    rng = np.random.default_rng(0)
    ends = [0.0, -0.0, np.inf, -np.inf, np.nan]
    X = np.concatenate([rng.standard_normal(20_001) * 5, ends]).astype(dtype)
    outputs = []
    for name in (fma[0], EMULATOR):
        _core.use_backend(name)
        Y = np.empty_like(X)
        state, saved = np.array([12345678901, 7]), np.zeros(2, np.int64)
        extra = {"state": state, "saved": saved, "p": 0.3} if "dropout" in kernel else {}
        getattr(_core, kernel)(X=X, Y=Y, **extra)
        outputs.append((Y, state, saved))
    for a, b in zip(*outputs, strict=True):
        assert bits_equal(a, b)


EXACT = ["amax", "gather", "random_index", "discounted_returns", "gae", "slice"]


@needs_backend
@pytest.mark.parametrize(
    "kernel", [k for k in kernels() if k.name.startswith(tuple(EXACT))], ids=lambda k: k.name
)
def test_chains_of_fixed_order_have_the_bits_of_the_cpu(kernel: Kernel) -> None:
    """One thread adds up what one element is made of, in the order of the CPU."""
    fma = [name for name in CPU_BACKENDS if name != "generic"]
    if not fma:
        pytest.skip("no backend with fused multiply-add here")
    for case in kernel.cases:
        if math.prod(case.sizes.values()) > EMULATED_SIZE:
            continue
        for dtype in DTYPES:
            outputs = []
            for name in (fma[0], EMULATOR):
                _core.use_backend(name)
                outputs.append(run_call(build(kernel, case, dtype)))
            same_bits(outputs[1], outputs[0], f"{fma[0]} against {EMULATOR}, {case!r}")


@needs_backend
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("targets", ["labels", "probabilities"])
def test_devices_without_clusters_get_the_same_bits(
    targets: str, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    _core.use_backend(EMULATOR)
    rng = np.random.default_rng(0)
    for C in (20_011, 100_003):
        X = (5 * rng.standard_normal((2, C))).astype(dtype)
        given = {"P": rng.random((2, C)).astype(dtype)}
        if targets == "labels":
            given = {"t": np.array([3, C - 1])}
        outputs = []
        for blocks in ("8", "1"):
            monkeypatch.setenv("FASTDL_CUEMU_MAX_CLUSTER", blocks)
            dX, loss = np.empty_like(X), np.empty(2, dtype)
            _core.cross_entropy_forward(X=X, dX=dX, loss=loss, reduction="none", **given)
            outputs.append((dX, loss))
        for a, b in zip(*outputs, strict=True):
            assert bits_equal(a, b)


@needs_backend
@pytest.mark.parametrize("S", [300, 40_001])  # on chip in one block, or not at all
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_norm_has_the_same_bits_on_chip_and_off(
    dtype: type, S: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _core.use_backend(EMULATOR)
    rng = np.random.default_rng(0)
    X, dY = (rng.standard_normal((2, 3, S)).astype(dtype) for _ in range(2))
    outputs = []
    for blocks in ("8", "2", "1"):
        monkeypatch.setenv("FASTDL_CUEMU_MAX_CLUSTER", blocks)
        Y, dX = np.empty_like(X), np.empty_like(X)
        mean, rstd, dgamma, dbeta = np.empty((4, 3), dtype)
        _core.batch_norm_forward(X=X, Y=Y, mean=mean, rstd=rstd)
        _core.batch_norm_backward(
            dY=dY, X=X, mean=mean, rstd=rstd, dX=dX, dgamma=dgamma, dbeta=dbeta
        )
        outputs.append((Y, mean, rstd, dX, dgamma, dbeta))
    for other in outputs[1:]:
        for a, b in zip(outputs[0], other, strict=True):
            assert bits_equal(a, b)
