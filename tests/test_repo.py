"""The repository keeps its own rules.

One op is one place, no symbol leaks between instruction sets, every name is documented, the package
stays light.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import fastdl
import pytest
from fastdl import _core
from subprocesses import python

ROOT = Path(__file__).resolve().parent.parent
OPS = sorted(p.name for p in (ROOT / "csrc/ops").iterdir() if p.is_dir())
SOURCE_FOLDERS = ("csrc", "python", "tests", "benchmarks", "examples", "tools")
SUFFIXES = {".h", ".cpp", ".cu", ".cuh", ".def", ".py", ".txt", ".toml"}


def sources() -> Iterator[Path]:
    yield ROOT / "CMakeLists.txt"
    yield ROOT / "pyproject.toml"
    for folder in SOURCE_FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and not {"build", "__pycache__"} & set(path.parts):
                yield path


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def ops_def() -> list[tuple[str, str]]:
    """(struct, kernel name) in the order of the list."""
    text = (ROOT / "csrc/ops.def").read_text()
    return re.findall(r"^FASTDL_OP\((\w+), (\w+)\)", text, re.MULTILINE)


# ---- one op is one place ------------------------------------------------------------------------


@pytest.mark.parametrize("op", OPS)
def test_an_op_is_a_contract_a_kernel_and_a_reference(op: str) -> None:
    for path in (f"csrc/ops/{op}/{op}.h", f"csrc/ops/{op}/{op}.cpu.cpp", f"tests/ops/{op}.py"):
        assert (ROOT / path).is_file(), f"{path} is missing"
    compiled = [p.name for p in (ROOT / "csrc/ops" / op).iterdir() if p.suffix in {".cpp", ".cu"}]
    strangers = [name for name in compiled if not name.startswith(f"{op}.")]
    assert not strangers, f"csrc/ops/{op} holds {strangers}: an op has one stem"


@pytest.mark.parametrize("folder", ["tests/ops", "python/fastdl/ops"])
def test_every_file_about_an_op_has_its_stem(folder: str) -> None:
    composed = {"getitem", "reshape"}  # public ops without a kernel
    stems = {p.stem for p in (ROOT / folder).glob("[!_]*.py")}
    assert stems <= set(OPS) | composed, f"{folder}: {sorted(stems - set(OPS) - composed)}"


def test_every_derivation_has_an_op() -> None:
    stems = {p.stem for p in (ROOT / "docs/derivations").glob("*.md")} - {"README", "index"}
    assert stems <= set(OPS)


def test_ops_are_listed_once_and_in_full() -> None:
    listed = ops_def()
    assert len(set(listed)) == len(listed)
    declared = []
    for op in OPS:
        text = (ROOT / f"csrc/ops/{op}/{op}.h").read_text()
        name = r'struct (\w+) \{\n  static constexpr const char\* name = "(\w+)"'
        declared += re.findall(name, text)
    assert sorted(declared) == sorted(listed)
    assert sorted(name for _, name in listed) == sorted(_core.op_names())


def test_nothing_else_knows_an_op_by_name() -> None:
    """Adding an op changes no binding, no build file, no core file."""
    words = [n for pair in ops_def() for n in pair if len(re.findall("_|[A-Z]", n)) > 1 or "_" in n]
    names = "|".join(words)  # but not words of everyday use, as copy
    files = [p for p in (ROOT / "csrc").glob("[!o]*/**/*") if p.is_file()]
    for path in [ROOT / "CMakeLists.txt", *files]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found = re.search(rf"\b({names})\b", line)
            if found and not line.lstrip().startswith("//"):
                raise AssertionError(f"{relative(path)}:{number} knows {found[0]}")


@pytest.mark.parametrize("struct, kernel", ops_def())
def test_every_kernel_is_documented(struct: str, kernel: str) -> None:
    header = next(
        text
        for op in OPS
        if f"struct {struct} {{" in (text := (ROOT / f"csrc/ops/{op}/{op}.h").read_text())
    )
    comment = re.search(rf"((?:^///.*\n)+)struct {struct} {{", header, re.MULTILINE)
    assert comment, f"{struct} has no /// comment"
    for word in ("cost", "numerics"):
        assert f"/// {word}" in comment[1], f"the comment of {struct} does not speak of {word}"
    doc = getattr(_core, kernel).__doc__
    assert doc.startswith(f"{kernel}(") and doc.count("[") >= 2


@pytest.mark.parametrize("name", fastdl.ops.__all__)
def test_every_public_op_is_documented(name: str) -> None:
    doc = getattr(fastdl.ops, name).__doc__ or ""
    for heading in ("Parameters\n", "Raises\n"):
        assert heading in doc, f"fastdl.ops.{name} says nothing under {heading.strip()}"
    if not name.endswith("_backward"):
        assert "Source: " in doc or name == "reshape", f"fastdl.ops.{name} names no source"


# ---- rules for files ----------------------------------------------------------------------------


def test_no_file_is_long() -> None:
    long = {relative(p): n for p in sources() if (n := len(p.read_text().splitlines())) > 400}
    assert not long, f"files of more than 400 lines: {long}"


def test_the_build_file_is_short() -> None:
    assert len((ROOT / "CMakeLists.txt").read_text().splitlines()) < 120


def test_no_flags_that_break_the_contract() -> None:
    """`native` makes wheels for one machine; fast-math makes bits and NaN a matter of luck."""
    flags = re.compile(r"-march=native|-ffast-math|-Ofast|-funsafe|-ffinite-math")
    here = Path(__file__).resolve()
    guilty = [relative(p) for p in sources() if p != here and flags.search(p.read_text())]
    assert not guilty


def test_cuda_kernels_go_through_the_port() -> None:
    """What the emulator could not run, or what makes bits depend on the device."""
    forbidden = re.compile(r"<<<|__shared__|\basm\b|\batomic\w+\(|multiProcessorCount")
    shared = [p for p in (ROOT / "csrc/cuda").glob("*.cuh") if p.name != "port.cuh"]
    for path in [*shared, *(ROOT / "csrc/ops").glob("*/*.cuda.cu")]:
        found = forbidden.search(path.read_text())
        assert not found, f"{relative(path)} uses {found and found[0]}: see csrc/cuda/port.cuh"


# ---- what the build made ------------------------------------------------------------------------


def isa_objects() -> list[Path]:
    given = os.environ.get("FASTDL_BUILD_DIR")
    folders = [Path(given)] if given else sorted((ROOT / "build").glob("*"))
    objects = [o for f in folders for o in f.glob("CMakeFiles/fastdl_*.dir/**/*.o")]
    if not objects:
        pytest.fail(
            "no object files of the kernels: build in place (`pip install --no-build-isolation -e "
            ".` leaves build/*/), or set FASTDL_BUILD_DIR to the CMake build folder"
        )
    return objects


def symbols(path: Path, *options: str) -> list[tuple[str, str]]:
    """(type, name) of every symbol."""
    out = subprocess.run(
        ["nm", "-C", *options, path], capture_output=True, text=True, check=True
    ).stdout
    return re.findall(r"^[0-9a-f ]* ([a-zA-Z]) (.*)$", out, re.MULTILINE)


needs_nm = pytest.mark.skipif(not shutil.which("nm"), reason="nm (binutils) is not installed")


@needs_nm
def test_kernels_define_no_symbol_that_the_linker_may_merge() -> None:
    """Else the copy compiled for the widest instruction set could be taken for all."""
    for path in isa_objects():
        weak = [name for kind, name in symbols(path, "--defined-only") if kind in "WVu"]
        assert not weak, f"{path} defines weak or unique symbols: {weak[:5]}"


@needs_nm
def test_kernels_stay_in_the_namespace_of_their_instruction_set() -> None:
    for path in isa_objects():
        isa = next(p for p in path.parts if p.startswith("fastdl_"))[len("fastdl_") : -len(".dir")]
        exported = [n for kind, n in symbols(path, "--defined-only") if kind in "TDBR"]
        strangers = [n for n in exported if not n.startswith(f"fastdl::{isa}::")]
        assert not strangers, f"{path} defines {strangers[:5]}"
        throws = [n for _, n in symbols(path) if "__cxa_throw" in n or "operator new" in n]
        assert not throws, f"{path} throws or allocates: {throws}"


@pytest.mark.skipif(not shutil.which("readelf"), reason="readelf (binutils) is not installed")
def test_the_module_needs_only_the_system() -> None:
    out = subprocess.run(
        ["readelf", "-d", _core.__file__], capture_output=True, text=True, check=True
    ).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", out)
    allowed = re.compile(r"(libstdc\+\+|libgcc_s|libc|libdl|libm|libpthread|librt|ld-linux)[.-]")
    assert needed and all(allowed.match(name) for name in needed), needed


def test_the_module_is_small() -> None:
    """As a wheel holds it, which must stay under 3 MB."""
    assert len(zlib.compress(Path(_core.__file__).read_bytes())) < 2_000_000


def test_the_stub_is_what_the_module_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastdl._stubs", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ---- importing ----------------------------------------------------------------------------------


def test_importing_fastdl_imports_none_of_the_extras() -> None:
    extras = {"torch", "sklearn", "matplotlib", "tqdm", "safetensors", "scipy", "pytest"}
    code = f"import sys, fastdl; print(sorted({extras} & set(sys.modules)))"
    assert python(code).stdout.strip() == "[]"


def test_importing_fastdl_takes_less_than_100_ms_beyond_numpy() -> None:
    """In processor time of the thread: neither other processes nor NumPy's threads disturb it."""
    code = """
        import time, numpy
        start = time.thread_time()
        import fastdl
        print(time.thread_time() - start)
    """
    assert min(float(python(code).stdout) for _ in range(7)) < 0.1


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="reads /proc")
def test_importing_starts_no_thread_and_prints_nothing() -> None:
    threads = "; print(len(os.listdir('/proc/self/task')))"
    done = python("import os, fastdl" + threads)
    assert done.stdout == python("import os, numpy" + threads).stdout and not done.stderr
