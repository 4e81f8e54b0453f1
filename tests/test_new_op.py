"""`./dev new-op NAME` writes an op that compiles, and changes nothing if it cannot."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMPILER = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The parts of the repository that the tool reads and writes."""
    for part in ("csrc", "tools", "python/fastdl/ops", "tests/ops"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def new_op(root: Path, name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, root / "tools/new_op.py", name],
        capture_output=True,
        text=True,
        check=False,
    )


def files(root: Path) -> dict[Path, str]:
    return {p: p.read_text() for p in sorted(root.rglob("*")) if p.is_file()}


def test_an_op_has_its_files_and_is_listed(copy: Path) -> None:
    done = new_op(copy, "soft_step")
    assert done.returncode == 0, done.stderr
    for path in ("csrc/ops/soft_step/soft_step.h", "csrc/ops/soft_step/soft_step.cpu.cpp",
                 "python/fastdl/ops/soft_step.py", "tests/ops/soft_step.py",
                 "docs/derivations/soft_step.md"):  # fmt: skip
        assert "soft_step" in (copy / path).read_text(), path
        assert "@op@" not in (copy / path).read_text().lower(), path
    listed = (copy / "csrc/ops.def").read_text().splitlines()
    assert "FASTDL_OP(SoftStepForward, soft_step_forward)" in listed
    includes = [line for line in listed if line.startswith("#include")]
    assert includes == sorted(includes)
    public = (copy / "python/fastdl/ops/__init__.py").read_text()
    assert "import soft_step, soft_step_backward" in public
    names = re.findall(r'^    "(\w+)",', public, re.MULTILINE)
    assert "soft_step_backward" in names and names == sorted(names)


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
def test_its_kernel_compiles(copy: Path) -> None:
    assert new_op(copy, "soft_step").returncode == 0
    subprocess.run(
        [COMPILER, "-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-Icsrc",
         "-DFASTDL_ISA=generic", "csrc/ops/soft_step/soft_step.cpu.cpp"],
        cwd=copy,
        check=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["relu", "LeakyRelu", "soft-step", "", "../x"])
def test_a_bad_name_changes_nothing(copy: Path, name: str) -> None:
    before = files(copy)
    done = new_op(copy, name)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert files(copy) == before
