"""The other end of the pipe: starts a worker process per library and asks it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

from benchmarks.workload import PACKAGES

ROOT = Path(__file__).resolve().parent.parent


class WorkerError(Exception):
    """A library failed; the text is for the table."""


def installed(library: str) -> bool:
    return importlib.util.find_spec(PACKAGES[library]) is not None


def cpus_for(threads: int) -> list[int]:
    """The last CPUs of those that may be used: the first is where a system's own work goes."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))[-threads:]


def environment(threads: int) -> dict[str, str]:
    """Thread counts for libraries that read them when they are loaded."""
    names = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "FASTDL")
    env = {f"{name}_NUM_THREADS": str(threads) for name in names}
    flags = os.environ.get("XLA_FLAGS", "")
    if threads == 1:
        flags += " --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    return {**os.environ, **env, "XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"}


class Worker:
    """One library, pinned to as many CPUs as it may use threads."""

    def __init__(self, library: str, threads: int, site: Path | None = None) -> None:
        self.library = library
        settings = {
            "library": library,
            "cpus": cpus_for(threads),
            "site": str(site) if site else None,
        }
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  lives as long as the worker
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=environment(threads),
        )
        try:
            self.info: dict[str, Any] = self.ask("info", threads=threads)
        except WorkerError:
            self.close()
            raise

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """Send a request and wait for the answer."""
        requests, answers = self._pipes()
        try:
            print(json.dumps({"do": do, **what}), file=requests, flush=True)
            line = answers.readline()
        except OSError:
            line = ""
        if not line:
            raise WorkerError(f"{self.library}: the process ended; {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.library}: {answer['error']}")
        return answer

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        return requests, answers

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [t for t in self._errors.read().splitlines() if t.strip()]
        return lines[-1][:200] if lines else "it said nothing"

    def close(self) -> None:
        """End the process: it leaves when its input ends."""
        if self._process.poll() is None:
            for pipe in self._pipes():
                pipe.close()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._errors.close()
