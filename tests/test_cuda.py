"""What fastdl says of CUDA, and how it opens the library of its kernels.

None of it needs a GPU; test_cuda_build.py builds the library and asks it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import fastdl as fd
import numpy as np
import pytest
from subprocesses import python, why_not_cuda

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


def test_a_missing_library_is_named(tmp_path):
    text = why_not_cuda(tmp_path / "libfastdl_cuda.so")
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
        why_not_cuda(library)
        == f"cuda: {library} is of another build than _core; install fastdl anew"
    )
