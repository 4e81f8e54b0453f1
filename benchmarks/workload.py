"""The vocabulary of a benchmark: cases, and one function per contender.

A file of a benchmark defines

    CASES       what is measured, as data
    CONTENDERS  name -> function (Case) -> Call, or None if this library cannot do the case
    TRAFFIC     which memory ceiling bounds it: "copy", "scale" or "adam" (see ceilings.py)

The name of a contender is a library, or "library/variant".  Libraries are imported inside the
functions: every one runs in a process of its own.  Arrays come from `Case.rng`, so that all
contenders get the same numbers.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
TOOLS = {"against", "ceilings", "driver", "harness", "plots", "report", "rounds", "worker"}
TOOLS |= {"workload", "options"}
#: Library of a contender -> its package.
PACKAGES = {
    "fastdl": "fastdl", "numpy": "numpy", "torch": "torch", "torch_compile": "torch",
    "jax": "jax", "sklearn": "sklearn",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One line of the table: sizes and options by name.

    `quick` cases are those of ``--quick``; `cold` ones are also measured with the caches swept
    before every call; `megabytes` is roughly what one contender needs.
    """

    name: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False
    cold: bool = False
    megabytes: float = 0
    dtype: str = "float32"

    def __getitem__(self, name: str) -> Any:
        return self.sizes[name]

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(self.name.encode()))

    def normal(self, rng: np.random.Generator, *shape: int) -> Array:
        """Standard normal numbers, times 0.1: sums stay of a usual size."""
        values = rng.standard_normal(shape, np.float32)
        values *= np.float32(0.1)
        return values.astype(self.dtype, copy=False)


@dataclass(frozen=True)
class Call:
    """What is timed: `run` again and again; `sync`, once after, waits for what the last returned.

    `programs` gives recorded steps of fastdl, whose kernels say the bytes and flops; else one call
    of `run` is recorded.
    """

    run: Callable[[], object]
    sync: Callable[[Any], object] | None = None
    programs: Callable[[], Sequence[Any]] | None = None


Contender = Callable[[Case], Call | None]


@dataclass(frozen=True)
class Workload:
    name: str
    cases: Sequence[Case]
    contenders: Mapping[str, Contender]
    traffic: str

    def case(self, name: str) -> Case:
        return next(c for c in self.cases if c.name == name)


def names() -> list[str]:
    """All benchmarks."""
    files = Path(__file__).parent.glob("[!_]*.py")
    return sorted(p.stem for p in files if p.stem not in TOOLS)


def load(name: str) -> Workload:
    module = importlib.import_module(f"benchmarks.{name}")
    return Workload(name, module.CASES, module.CONTENDERS, module.TRAFFIC)


def library_of(contender: str) -> str:
    """The library, without variant and revision."""
    return contender.partition("/")[0].partition("@")[0]
