"""The ceilings of this machine: multiply-adds, memory traffic, starting a thread.

``ceilings.cpp`` is compiled with the system's compiler on first use, once per instruction set, into
``build/bench/``.  A rate is the best of several short runs: a ceiling is what the machine can do,
not what it does on average.  Short runs fit between the time slices of other processes.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import platform
import shutil
import subprocess
import zlib
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "bench"
SOURCE = Path(__file__).with_name("ceilings.cpp")

KINDS = ("read", "copy", "copy_nt", "scale", "adam")
BITS = {"float32": 32, "float64": 64, "bfloat16": 16}
KIB, MIB = 1 << 10, 1 << 20
SIZES = [32 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB, 1024 * MIB]
QUICK_SIZES = [32 * KIB, 512 * KIB, 8 * MIB, 256 * MIB]


@dataclass
class Ceilings:
    """Rates by what and how many threads; threads are strings, as JSON has them."""

    #: isa -> dtype -> threads -> GFLOP/s
    fma: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    #: threads -> kind -> [(bytes of all arrays, GB/s)]
    bandwidth: dict[str, dict[str, list[tuple[int, float]]]] = field(default_factory=dict)
    note: str = ""

    def peak(self, isa: str, dtype: str, threads: int) -> float | None:
        """GFLOP/s of an instruction set."""
        return self.fma.get(isa, {}).get(dtype, {}).get(str(threads))

    def rate(self, traffic: str, size: float, threads: int) -> float | None:
        """GB/s for arrays of this size; a copy may go past the cache, where that is faster."""
        kinds = ("copy", "copy_nt") if traffic == "copy" else (traffic,)
        curves = self.bandwidth.get(str(threads), {})
        found = [interpolate(curves[k], size) for k in kinds if curves.get(k)]
        return max(found, default=None)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def interpolate(curve: list[tuple[int, float]], size: float) -> float:
    """Linear in the logarithm of the size, constant outside."""
    if size <= curve[0][0]:
        return curve[0][1]
    for (low, a), (high, b) in pairwise(curve):
        if size <= high:
            return a + (b - a) * math.log(size / low) / math.log(high / low)
    return curve[-1][1]


# ---- compiling ----------------------------------------------------------------------------------


def cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    line = next((t for t in text.splitlines() if t.startswith(("flags", "Features"))), ":")
    return set(line.partition(":")[2].split())


def isas() -> dict[str, list[str]]:
    """Compiler options of the instruction sets of this machine, the best first."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return {"neon" if platform.machine() in ("aarch64", "arm64") else "generic": ["-DBYTES=16"]}
    flags, found = cpu_flags(), {}
    if "avx512f" in flags:
        bf16 = ["-mavx512bf16"] if "avx512_bf16" in flags else []
        found["avx512"] = ["-DBYTES=64", "-mavx512f", "-mfma", *bf16]
    if {"avx2", "fma"} <= flags:
        found["avx2"] = ["-DBYTES=32", "-mavx2", "-mfma"]
    return {**found, "generic": ["-DBYTES=16"]}


def compiler() -> list[str] | None:
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        words = name.split()
        if words and shutil.which(words[0]):
            return words
    return None


def library(isa: str, options: list[str]) -> ctypes.CDLL:
    """Compile unless that was done; raises OSError with the compiler's words if it cannot."""
    cxx = compiler()
    if cxx is None:
        raise OSError("no C++ compiler was found")
    flags = ["-std=c++20", "-O3", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread", *options]
    key = zlib.crc32(SOURCE.read_bytes() + " ".join(cxx + flags).encode())
    target = FOLDER / f"ceilings-{isa}-{key:08x}.so"
    if not target.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(f".{os.getpid()}.tmp")
        command = [*cxx, *flags, str(SOURCE), "-o", str(fresh)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.stderr[-500:]}")
        fresh.replace(target)
    lib = ctypes.CDLL(str(target))
    lib.ceiling_fma.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long]
    lib.ceiling_bandwidth.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_int, ctypes.c_long]
    lib.ceiling_fork_join.argtypes = [ctypes.c_int, ctypes.c_double]
    for function in (lib.ceiling_fma, lib.ceiling_bandwidth, lib.ceiling_fork_join):
        function.restype = ctypes.c_double
    return lib


@functools.cache
def library_of(isa: str) -> ctypes.CDLL:
    return library(isa, isas()[isa])


# ---- measuring ----------------------------------------------------------------------------------


def best_fma(lib: ctypes.CDLL, bits: int, threads: int, seconds: float, repeat: int) -> float:
    """GFLOP/s."""
    n = 2000
    rate = lib.ceiling_fma(bits, threads, n)
    if not rate:
        return 0.0
    lanes_flops = rate * seconds / (24 * threads)  # of one lane
    n = max(n, int(lanes_flops * bits / 8 / 64))
    return float(max(lib.ceiling_fma(bits, threads, n) for _ in range(repeat)) / 1e9)


def best_bandwidth(
    lib: ctypes.CDLL, kind: str, size: int, threads: int, seconds: float, repeat: int
) -> float:
    """GB/s."""
    index = KINDS.index(kind)
    lib.ceiling_bandwidth(index, size, threads, 1)
    rate = lib.ceiling_bandwidth(index, size, threads, 1)
    passes = max(1, int(rate * seconds / (2 * size))) if rate else 1
    runs = (lib.ceiling_bandwidth(index, size, threads, passes) for _ in range(repeat))
    return float(max(runs) / 1e9)


def fma_now(isa: str, dtype: str, threads: int) -> float | None:
    """GFLOP/s of one run of 3 ms: under the clock that the load just before has left."""
    try:
        return best_fma(library_of(isa), BITS[dtype], threads, 0.003, 1) or None
    except (OSError, KeyError):
        return None


def measure(threads: list[int], quick: bool, seconds: float = 0.003) -> Ceilings:
    """Measure what there is; without a compiler nothing, and `note` says so."""
    found = Ceilings()
    repeat = 6 if quick else 10
    try:
        libraries = {isa: library(isa, options) for isa, options in isas().items()}
    except OSError as error:
        found.note = f"no ceilings: {error}"
        return found
    for isa, lib in libraries.items():
        for dtype, bits in BITS.items():
            rates = {str(t): best_fma(lib, bits, t, seconds, 3 * repeat) for t in threads}
            if all(rates.values()):
                found.fma.setdefault(isa, {})[dtype] = rates
    widest = next(iter(libraries.values()))
    for t in threads:
        found.bandwidth[str(t)] = {
            kind: [
                (size, best_bandwidth(widest, kind, size, t, seconds, repeat))
                for size in (QUICK_SIZES if quick else SIZES)
            ]
            for kind in KINDS
        }
    return found


def probe(quick: bool = False) -> dict[str, float]:
    """The state of the first two CPUs: a virtual machine may have them near or far apart.

    Starting a thread is cheap and joint bandwidth low when they share a cache, and the reverse when
    they do not.  Compare runs with two threads only if this is alike.
    """
    if (os.cpu_count() or 1) < 2:
        return {}
    try:
        lib = library(*next(iter(isas().items())))
    except OSError:
        return {}
    size, repeat = (64 * MIB, 2) if quick else (256 * MIB, 4)
    one, two = (best_bandwidth(lib, "adam", size, t, 0.003, 8 * repeat) for t in (1, 2))
    fork_join = min(lib.ceiling_fork_join(2000, 0.2) for _ in range(3 + repeat))
    return {
        "fork_join_us": round(fork_join * 1e6, 3),
        "adam_gbs_1": round(one, 1),
        "adam_gbs_2": round(two, 1),
        "adam_2_over_1": round(two / one, 2) if one else 0.0,
    }


def alike(before: dict[str, float], after: dict[str, float]) -> bool:
    """Whether two probes say the same, within a third."""
    names = ("fork_join_us", "adam_2_over_1")
    return all(
        before.get(n, 0) <= 1.33 * after.get(n, 0) and after.get(n, 0) <= 1.33 * before.get(n, 0)
        for n in names
    )
