"""nvcc compiles the CUDA kernels, and none spills registers; `./dev cuda` for all devices."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
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


@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc: CUDA kernels are not compiled")
def test_no_kernel_spills_registers_on_sm_90(tmp_path: Path) -> None:
    pybind11 = pytest.importorskip("pybind11")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if not shutil.which("cmake", path=path) or not shutil.which("ninja", path=path):
        pytest.skip("needs cmake and ninja")
    environment = {**os.environ, "PATH": path}
    options = ["-G", "Ninja", "-DFASTDL_CUDA=ON", "-DFASTDL_CUDA_ARCHITECTURES=90-real"]
    options += [
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    ]
    folder = tmp_path / "build"
    said = ""
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(folder), *options],
        ["cmake", "--build", str(folder), "--target", "fastdl_cuda"],
    ):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=1200
        )
        assert done.returncode == 0, done.stdout + done.stderr
        said += done.stdout
    (tmp_path / "log").write_text(said)
    done = judge(tmp_path / "log")
    assert done.returncode == 0, done.stdout
