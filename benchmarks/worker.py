"""A process that runs the contenders of one library, told what to do over a pipe.

It reads one JSON object per line and answers with one.  Affinity and thread counts are set before
the library is imported: most of them look only once.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import resource
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np

from benchmarks import ceilings, workload
from benchmarks.workload import Call

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
SWEEP_BYTES = 128 << 20


# ---- what else ran ------------------------------------------------------------------------------


def busy_seconds() -> float | None:
    """Time that all CPUs have spent on anything, the hypervisor's thefts included."""
    try:
        with open("/proc/stat") as f:
            fields = [int(x) for x in f.readline().split()[1:9]]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / TICKS


def waited_seconds() -> float:
    """Time that the threads of this process were ready to run but had no CPU."""
    total = 0
    try:
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/schedstat") as f:
                total += int(f.read().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return total / 1e9


def own_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def affinity() -> set[int]:
    return set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else {0}


class Watch:
    """Wall time since it was made, and the share of it that others used of our CPUs."""

    def __init__(self) -> None:
        self._busy, self._own, self._waited = busy_seconds(), own_seconds(), waited_seconds()
        self._start = time.perf_counter()

    def read(self) -> dict[str, float]:
        wall = time.perf_counter() - self._start
        busy, own = busy_seconds(), own_seconds() - self._own
        late = len(affinity()) / TICKS  # /proc/stat counts in ticks, and may be late by one
        foreign = 0.0 if busy is None or self._busy is None else busy - self._busy - own - late
        waited = waited_seconds() - self._waited
        return {"wall": wall, "foreign": max(0.0, foreign), "waited": waited}


# ---- timing -------------------------------------------------------------------------------------


def finish(call: Call, out: Any) -> None:
    if call.sync is not None:
        call.sync(out)


def warm(call: Call, calls: int) -> list[float]:
    """The mean of many calls in a row."""
    run, out = call.run, None
    start = time.perf_counter()
    for _ in range(calls):
        out = run()
    finish(call, out)
    return [(time.perf_counter() - start) / calls]


def cold(call: Call, calls: int, sweep: Callable[[], object]) -> list[float]:
    """Every call on its own, after other memory has gone through the caches."""
    times = []
    for _ in range(calls):
        sweep()
        start = time.perf_counter()
        finish(call, call.run())
        times.append(time.perf_counter() - start)
    return times


def calibrate(call: Call, seconds: float) -> int:
    """How many calls take about so long."""
    calls = 1
    while True:
        took = warm(call, calls)[0] * calls
        if took >= seconds / 4 or calls > 1 << 24:
            return max(1, round(calls * seconds / max(took, 1e-9)))
        calls *= 4


# ---- what fastdl says of its kernels ------------------------------------------------------------


def array_bytes(arguments: str) -> int:
    """Bytes of the arrays in "X float32(3, 4), b float32(4,)"."""
    total = 0
    for bits, dims in re.findall(r"[a-z]+(\d+)\(([\d, ]*)\)", arguments):
        total += int(bits) // 8 * int(np.prod([int(d) for d in re.findall(r"\d+", dims)]))
    return total


def kernels(call: Call) -> list[dict[str, Any]]:
    """Name, bytes, flops and size of the arrays of every kernel of a call."""
    from fastdl import _core

    if call.programs is not None:
        programs = list(call.programs())
    else:
        programs = [_core.Program([])]
        programs[0].begin()
        try:
            call.run()
        finally:
            programs[0].end()
    listed = [c for program in programs for c in program.calls()]
    return [
        {
            "name": c["name"],
            "bytes": c["bytes"],
            "flops": c["flops"],
            "size": array_bytes(c["args"]),
        }
        for c in listed
    ]


# ---- the process --------------------------------------------------------------------------------


class Worker:
    def __init__(self, library: str, site: str | None) -> None:
        self.library, self._site = library, site
        self._calls: dict[str, Call] = {}
        self._buffer: Any = None

    def info(self, threads: int) -> dict[str, Any]:
        """Import the library, set its threads, and say what it is."""
        package = workload.PACKAGES[self.library]
        module = importlib.import_module(package)
        if package == "torch":
            module.set_num_threads(threads)
            module.set_num_interop_threads(1)
        if package == "fastdl":
            module.set_num_threads(threads)
            from fastdl import _core

            if self._site and not _core.__file__.startswith(self._site):
                raise RuntimeError(f"took {_core.__file__}, not the revision in {self._site}")
            return {"version": module.__version__, "isa": _core.backend()}
        name = {"sklearn": "scikit-learn"}.get(package, package)
        return {"version": importlib.metadata.version(name)}

    def load(self, benchmark: str, case: str, contender: str, seconds: float) -> dict[str, Any]:
        """Prepare a contender; after a warm-up, how many calls make a round."""
        work = workload.load(benchmark)
        plain = contender.partition("@")[0]
        call = work.contenders[plain](work.case(case))
        if call is None:
            return {"cannot": True}
        for _ in range(3):
            finish(call, call.run())
        found = kernels(call) if self.library == "fastdl" else []
        self._calls[contender] = call
        return {"calls": calibrate(call, seconds), "kernels": found}

    def round(
        self, contender: str, calls: int, swept: bool, peak: dict[str, Any] | None
    ) -> dict[str, Any]:
        """A round, and right after it the rate of multiply-adds that `peak` asks for."""
        call = self._calls[contender]
        watch = Watch()
        times = cold(call, calls, self._sweep) if swept else warm(call, calls)
        answer = {"seconds": times, **watch.read()}
        return {**answer, "peak": ceilings.fma_now(**peak) if peak else None}

    def drop(self) -> dict[str, Any]:
        self._calls.clear()
        return {}

    def _sweep(self) -> None:
        if self._buffer is None:
            self._buffer = np.zeros(SWEEP_BYTES // 4, np.float32)
        np.add(self._buffer, 1, out=self._buffer)


def serve(worker: Worker, answers: TextIO) -> None:
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # noqa: BLE001  the driver names the failure and goes on
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        print(json.dumps(answer), file=answers, flush=True)


def main() -> None:
    settings = json.loads(sys.argv[1])
    if settings["site"]:  # another revision: the editable install would come first
        sys.meta_path = [f for f in sys.meta_path if "editable" not in type(f).__module__]
        sys.path.insert(0, settings["site"])
    if hasattr(os, "sched_setaffinity") and settings["cpus"]:
        os.sched_setaffinity(0, settings["cpus"])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    serve(Worker(settings["library"], settings["site"]), answers)


if __name__ == "__main__":
    main()
