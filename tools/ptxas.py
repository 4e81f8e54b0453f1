"""What ptxas says of the CUDA kernels in a build log: registers, and what did not fit in them.

    python tools/ptxas.py build/cuda.log

prints a line for each architecture and one for each kernel that spills; fails if one does.
"""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

#: Bytes that a kernel may spill: ptxas stops at the registers that leave room for one more block on
#: a multiprocessor.  Bounded to fewer by __launch_bounds__(threads, blocks) it spills nothing.
TOLERATED = {
    "forward_kernel<4, true, double>": 48,  # log_softmax on sm_120: 64 registers, 70 without
    "rows_kernel<2, 16, 3, fastdl::Bf16>": 28,  # sm_80: cross_entropy, soft targets, longest rows
    "rows_kernel<0, 4, 0, float>": 12,  # cross_entropy, a row in a warp: 48 registers, 49 without
}
ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '(?P<arch>\w+)'.*?"
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


@dataclass(frozen=True)
class Kernel:
    """One entry function for one architecture."""

    name: str
    arch: str
    registers: int
    spilled: int  # bytes, stored and loaded


def kernels(log: str) -> list[Kernel]:
    return [
        Kernel(m["name"], m["arch"], int(m["registers"]), int(m["stores"]) + int(m["loads"]))
        for m in ENTRY.finditer(log)
    ]


@functools.cache
def readable(name: str) -> str:
    text = subprocess.run(["c++filt", name], capture_output=True, text=True, check=True).stdout
    text = re.sub(r"fastdl::cuda::|\(anonymous namespace\)::|void ", "", text.strip())
    text = re.sub(r"\(\w+\)(?=\d)", "", text)  # (Team)1 is 1
    return re.sub(r"\(.*", "", text)


def spills(found: list[Kernel]) -> list[str]:
    return [
        f"{k.arch}: {readable(k.name)} spills {k.spilled} bytes at {k.registers} registers"
        for k in found
        if k.spilled > TOLERATED.get(readable(k.name), 0)
    ]


def main() -> None:
    found = kernels(Path(sys.argv[1]).read_text())
    by_arch = defaultdict(list)
    for kernel in found:
        by_arch[kernel.arch].append(kernel.registers)
    for arch, registers in sorted(by_arch.items()):
        print(f"{arch}: {len(registers)} kernels, {max(registers)} registers at most")
    print(*spills(found), sep="\n")
    if not found or spills(found):
        sys.exit(1)


if __name__ == "__main__":
    main()
