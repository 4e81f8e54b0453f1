"""What fastdl says of CUDA, and how it opens the library of its kernels.

None of it needs a GPU.  Where nvcc is, the library itself is built, opened and asked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import fastdl as fd
import numpy as np
import pytest
from subprocesses import python

ROOT = Path(__file__).resolve().parent.parent
COMPILER = shutil.which("c++") or shutil.which("g++")


def test_the_status_explains_itself():
    status = fd.cuda.status()
    assert fd.cuda.is_available() == (status.problem is None)
    assert status.library.endswith("libfastdl_cuda.so")
    assert str(status) in fd.show_config()
    if not status.built:
        assert "build fastdl where nvcc is on PATH" in status.problem
        with pytest.raises(RuntimeError, match=r"^cuda: this build has no CUDA kernels"):
            fd.Tensor(np.ones(3), device="cuda")


def test_devices_have_names():
    with pytest.raises(ValueError, match="device: must be 'cpu' or 'cuda', got 'gpu'"):
        fd.Tensor(np.ones(3), device="gpu")
    with pytest.raises(ValueError, match="works on the first GPU of CUDA_VISIBLE_DEVICES"):
        fd.Tensor(np.ones(3), device="cuda:1")


def test_importing_and_computing_opens_nothing():
    code = """
        import fastdl as fd, numpy as np
        fd.ops.relu(fd.Tensor(np.ones(3), requires_grad=True)).sum().backward()
        maps = open("/proc/self/maps").read()
        assert "libfastdl_cuda" not in maps and "libcuda." not in maps
    """
    if not Path("/proc/self/maps").exists():
        pytest.skip("reads /proc")
    python(code)


def why_not(library: Path) -> str:
    code = """
        import fastdl as fd, numpy as np
        try:
            fd.Tensor(np.ones(3), device="cuda")
        except RuntimeError as e:
            print(e)
        assert not fd.cuda.is_available()
        fd.ops.relu(np.ones(3))
    """
    return python(code, FASTDL_CUDA_LIBRARY=str(library)).stdout.strip()


def test_a_missing_library_is_named(tmp_path):
    text = why_not(tmp_path / "libfastdl_cuda.so")
    assert text.startswith("cuda: this build has no CUDA kernels") and str(tmp_path) in text


@pytest.mark.skipif(not COMPILER or sys.platform != "linux", reason="needs a C++ compiler")
@pytest.mark.parametrize(
    "door", ["", 'extern "C" const void* fastdl_cuda_runtime(long) { return 0; }']
)
def test_a_library_of_another_build_is_refused(tmp_path, door):
    source, library = tmp_path / "door.cpp", tmp_path / "libfastdl_cuda.so"
    source.write_text(door)
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, source], check=True)
    assert (
        why_not(library) == f"cuda: {library} is of another build than _core; install fastdl anew"
    )


@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")
def test_the_library_builds_and_says_what_is_missing(tmp_path):
    """For one architecture; it must be of the build of _core, and need no CUDA library."""
    import pybind11

    configure = [
        "cmake", "-S", ROOT, "-B", tmp_path, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
        "-DFASTDL_CUDA=ON", "-DFASTDL_CUDA_ARCHITECTURES=90-real",
        f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    ]  # fmt: skip
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # ./dev has them there
    build = ["cmake", "--build", tmp_path, "-j", "2", "--target", "fastdl_cuda"]
    for command in (configure, build):
        done = subprocess.run(
            [shutil.which(command[0], path=path), *command[1:]],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (library,) = tmp_path.rglob("libfastdl_cuda.so")
    needed = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
    assert "libcuda" not in needed and "libcublas" not in needed
    code = "import fastdl; s = fastdl.cuda.status(); print(s.built, s.architectures, s.problem)"
    said = python(code, FASTDL_CUDA_LIBRARY=str(library)).stdout
    assert said.startswith("True 90-real ")
    if not shutil.which("nvidia-smi"):
        assert "there is no NVIDIA driver on this machine" in why_not(library)
