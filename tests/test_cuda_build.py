"""nvcc compiles the CUDA kernels, and none spills registers; `./dev cuda` for all devices."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from subprocesses import python, why_not_cuda

ROOT = Path(__file__).resolve().parent.parent
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z3addPf' for 'sm_90'
ptxas info    : Function properties for _Z3addPf
    {stack} bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads
ptxas info    : Used 24 registers, used 1 barriers, 256 bytes smem
"""


def judge(log: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/ptxas.py", str(log)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not shutil.which("c++filt"), reason="needs c++filt")
def test_a_spill_is_found_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(LOG.format(stack=0, stores=0, loads=0))
    done = judge(log)
    assert done.returncode == 0
    assert done.stdout.startswith("sm_90: 1 kernels, 24 registers at most\n")
    log.write_text(LOG.format(stack=8, stores=8, loads=4) + LOG.format(stack=0, stores=0, loads=0))
    done = judge(log)
    assert done.returncode == 1
    assert "sm_90: add spills 12 bytes at 24 registers" in done.stdout
    log.write_text("nothing was compiled")
    assert judge(log).returncode == 1


def tool(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if not found:
        pytest.skip(f"needs {name}: CUDA kernels are not compiled")
    return found


def cmake(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("cmake"), *arguments],
        env={**os.environ, "PATH": PATH, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )


def configure(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    tool("ninja")
    pybind11 = pytest.importorskip("pybind11")
    options += (
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    )
    return cmake("-S", ROOT, "-B", folder, "-G", "Ninja", *options, **variables)


def make(folder: Path, target: str, *options: str) -> str:
    """Configures and builds the target; what the build said."""
    tool("nvcc")
    said = ""
    for done in (
        configure(folder, "-DFASTDL_CUDA=ON", *options),
        cmake("--build", folder, "--target", target),
    ):
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        said += done.stdout
    return said


@pytest.mark.parametrize("release", ["", "12.3"])
def test_without_a_new_nvcc_kernels_are_left_out_or_refused(release: str, tmp_path: Path) -> None:
    nvcc, found = tmp_path / "nvcc", "none was found"
    if release:
        nvcc.write_text(
            f'#!/bin/sh\n[ "$*" = --version ] && exec echo release {release}, V\n'
            f'exec {tool("nvcc")} "$@"\n'
        )
        nvcc.chmod(0o755)
        found = f"nvcc is of {release}"
    auto = configure(tmp_path / "auto", CUDACXX=str(nvcc))
    assert auto.returncode == 0, auto.stderr
    assert f"{found}: they are left out" in auto.stdout
    on = configure(tmp_path / "on", "-DFASTDL_CUDA=ON", CUDACXX=str(nvcc))
    assert on.returncode == 1
    words = " ".join(on.stderr.split())
    assert "FASTDL_CUDA=ON needs nvcc 12.8 or newer, and " in words and f"{found}: inst" in words


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The library for one architecture, and what the build said."""
    folder = tmp_path_factory.mktemp("cuda")
    log = folder / "said.log"
    log.write_text(make(folder, "fastdl_cuda", "-DFASTDL_CUDA_ARCHITECTURES=90-real"))
    (library,) = folder.rglob("libfastdl_cuda.so")
    return library, log


def test_no_kernel_spills_registers_on_sm_90(build: tuple[Path, Path]) -> None:
    done = judge(build[1])
    assert done.returncode == 0, done.stdout


def test_the_library_is_compressed(build: tuple[Path, Path]) -> None:
    """docs/decisions/0016 has the sizes: without compression it is three times as large."""
    assert build[0].stat().st_size < 3_000_000


def test_the_library_names_all_architectures(tmp_path: Path) -> None:
    """Each in its own word, in the one file that has them: kernels for all take minutes."""
    compiled = "csrc/cuda/CMakeFiles/fastdl_cuda.dir/runtime.cpp.o"
    make(tmp_path, compiled)
    assert b"80-real 86-real 89-real 90-real 100-real 120\0" in (tmp_path / compiled).read_bytes()


def test_the_library_says_what_is_missing(build: tuple[Path, Path]) -> None:
    """It must be of the build of _core, and need no CUDA library."""
    library = build[0]
    needed = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
    assert "libcuda" not in needed and "libcublas" not in needed
    code = "import fastdl; s = fastdl.cuda.status(); print(s.built, s.architectures, s.problem)"
    said = python(code, FASTDL_CUDA_LIBRARY=str(library)).stdout
    assert said.startswith("True 90-real ")
    if not shutil.which("nvidia-smi"):
        assert "there is no NVIDIA driver on this machine" in why_not_cuda(library)
