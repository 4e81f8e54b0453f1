"""Another revision of this repository, built beside this one in ``build/bench-REV``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("csrc", "CMakeLists.txt")


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def commit() -> str:
    """The short name of this revision, with a + if files were changed since; "" outside git."""
    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (ValueError, OSError):
        return ""


def build(rev: str) -> tuple[str, Path]:
    """Short name of the revision, and the folder to import its fastdl from."""
    name = git("rev-parse", "--short", "--verify", f"{rev}^{{commit}}")
    folder = ROOT / "build" / f"bench-{name}"
    site, source = folder / "site", folder / "source"
    package = site / "fastdl"
    if any(package.glob("_core*")):
        return name, site
    if not source.exists():
        git("worktree", "prune")
        git("worktree", "add", "--detach", "--force", str(source), name)
    package.mkdir(parents=True, exist_ok=True)
    for path in (source / "python" / "fastdl").iterdir():
        link = package / path.name
        if not link.is_symlink():
            link.symlink_to(path)
    if not git("diff", "--name-only", name, "--", *SOURCES):
        _copy_core(package)  # nothing differs that is compiled
    else:
        _compile(source, folder / "cmake" / "core", site)
    return name, site


def _copy_core(package: Path) -> None:
    from fastdl import _core

    core = Path(_core.__file__)
    shutil.copy(core, package / core.name)


def _compile(source: Path, folder: Path, site: Path) -> None:
    """As the ``sanitize`` command of ./dev does, with the packages that build this revision."""
    pybind11 = subprocess.run(
        [sys.executable, "-m", "pybind11", "--cmakedir"],
        capture_output=True,
        text=True,
        check=False,
    )
    if pybind11.returncode:
        raise ValueError(
            "building another revision needs pybind11, cmake and ninja; use ./dev bench"
        )
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.parent / "build.log"
    found = shutil.which("cmake", path=str(Path(sys.executable).parent)) or "cmake"
    configure = [
        *(found, "-S", str(source), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release"),
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.stdout.strip()}",
    ]
    steps = [
        configure,
        [found, "--build", str(folder), "--parallel", "2"],
        [found, "--install", str(folder), "--prefix", str(site)],
    ]
    print(f"bench: building {source.parent.name}, once", file=sys.stderr, flush=True)
    with open(log, "w") as out:
        for step in steps:
            if subprocess.run(step, stdout=out, stderr=out, check=False).returncode:
                raise ValueError(f"the build failed; its words are in {log}")
