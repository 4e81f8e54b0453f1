"""Everything to be done on a GPU, in one call of less than ten minutes: ``./dev gpu``.

    copy       the bandwidth of a copy, the ceiling of every kernel here
    harness    the cases of tests/ops on the device, against their float64 references
    memcheck   a few of them under compute-sanitizer, likewise racecheck
    bench      the main kernels beside torch, in one process

Each stage is a process with a time of its own, so that one that hangs costs no other.  What they
find goes to one JSON file.  ``--device cuemu`` runs it all, in small sizes, where there is no GPU.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SECONDS = {"copy": 30, "harness": 150, "memcheck": 90, "racecheck": 90, "bench": 120}
#: A case of the harness has at most so many elements: on the device, and under compute-sanitizer.
CASE_SIZE, CHECKED_SIZE = 600_000, 2_000
#: Under compute-sanitizer: the kernels that share memory among threads.
CHECKED = ("cross_entropy", "batch_norm", "layer_norm", "log_softmax", "sum", "amax", "adam")
ROUNDS, ROUND_SECONDS = 7, 0.05

Row = dict[str, Any]


# ---- times --------------------------------------------------------------------------------------


def seconds(call: Callable[[], Any], wait: Callable[[], Any]) -> float:
    """The median over rounds of the mean time of a call; the device is waited for once a round."""

    def round_of(n: int) -> float:
        wait()
        start = time.perf_counter()
        for _ in range(n):
            call()
        wait()
        return (time.perf_counter() - start) / n

    round_of(2)
    n = max(1, round(ROUND_SECONDS / round_of(1)))
    return statistics.median(round_of(n) for _ in range(ROUNDS))


def bandwidth(device: str) -> float:
    """Bytes a second of a copy, read and written: the best of fastdl's and torch's."""
    import fastdl
    from fastdl import _core

    n = 10**4 if device == "cuemu" else 2**28
    x = fastdl.Tensor(np.zeros(n, np.float32), device=device)._array
    y = _core.empty_on(device, (n,), np.dtype(np.float32))
    times = [seconds(lambda: _core.copy(x, y), lambda: fastdl.cuda.synchronize(device))]
    torch = torch_on(device)
    if torch:
        a, b = torch.zeros(n, device=device), torch.empty(n, device=device)
        times.append(seconds(lambda: b.copy_(a), torch.cuda.synchronize))
    return 8 * n / min(times)


def torch_on(device: str) -> Any:
    """The module torch, or None."""
    try:
        import torch
    except ImportError:
        return None
    return torch if device == "cuda" and torch.cuda.is_available() else None


# ---- workloads ----------------------------------------------------------------------------------


@dataclass
class Workload:
    """The same work by fastdl and, if it is there, by torch; bytes: the least that it moves."""

    name: str
    bytes: int
    fastdl: Callable[[], Any]
    torch: Callable[[], Any] | None


def bytes_of(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else 4


def adamw(device: str, torch: Any, dtype: str, n: int) -> Iterator[Workload]:
    """In bfloat16 with float32 weights and moments, which torch's does not keep."""
    import fastdl as fd

    values = np.random.default_rng(0).standard_normal(n, np.float32)
    p = fd.nn.Parameter(fd.Tensor(values, device=device).to(dtype))
    p.grad = p.detach().to("float32").to(dtype)
    ours, theirs = fd.optim.AdamW([p], lr=1e-3), None
    if torch and dtype == "float32":
        q = torch.nn.Parameter(torch.from_numpy(values).to(device))
        q.grad = torch.from_numpy(values).to(device)
        theirs = torch.optim.AdamW([q], lr=1e-3, fused=True).step
    yield Workload(f"adamw {dtype} {n}", 28 * n, ours.step, theirs)


def cross_entropy(device: str, torch: Any, dtype: str, B: int, C: int) -> Iterator[Workload]:
    """Loss and gradient of the logits."""
    import fastdl as fd

    rng = np.random.default_rng(0)
    X, t = rng.standard_normal((B, C), np.float32), rng.integers(0, C, B)
    x, labels = fd.Tensor(X, device=device).to(dtype), fd.Tensor(t, device=device)
    x.requires_grad = True

    def ours() -> None:
        x.grad = None
        loss: Any = fd.ops.cross_entropy(x, labels)
        loss.backward()

    theirs = None
    if torch:
        a = torch.from_numpy(X).to(device, getattr(torch, dtype)).requires_grad_()
        b = torch.from_numpy(t).to(device)

        def theirs() -> None:
            a.grad = None
            torch.nn.functional.cross_entropy(a, b).backward()

    moved = 2 * bytes_of(dtype) * B * C
    yield Workload(f"cross_entropy {dtype} {B}x{C}", moved, ours, theirs)


def norms(
    device: str, torch: Any, dtype: str, name: str, shape: tuple[int, ...]
) -> Iterator[Workload]:
    """layer_norm or batch_norm: forward, then forward and backward together."""
    import fastdl as fd

    rng = np.random.default_rng(0)
    X, dY = (rng.standard_normal(shape, np.float32) for _ in range(2))
    width = shape[-1] if name == "layer_norm" else shape[1]
    gamma, beta = np.ones(width, np.float32), np.zeros(width, np.float32)
    x, dy = (fd.Tensor(v, device=device).to(dtype) for v in (X, dY))
    g, b = (fd.Tensor(v, device=device, requires_grad=True) for v in (gamma, beta))
    x.requires_grad = True

    def ours() -> Any:
        if name == "layer_norm":
            return fd.ops.layer_norm(x, (width,), g, b)
        return fd.ops.batch_norm(x, None, None, g, b, training=True)

    def both() -> None:
        x.grad = g.grad = b.grad = None
        ours().backward(dy.detach())

    theirs = theirs_both = None
    if torch:
        u, du, v, w = (
            torch.from_numpy(a).to(device, getattr(torch, dtype)) for a in (X, dY, gamma, beta)
        )
        inputs = [a.requires_grad_() for a in (u, v, w)]
        function = torch.nn.functional

        def theirs() -> Any:
            if name == "layer_norm":
                return function.layer_norm(u, (width,), v, w)
            return function.batch_norm(u, None, None, v, w, training=True)

        def theirs_both() -> None:
            torch.autograd.grad(theirs(), inputs, du)

    label = f"{name} {dtype} {'x'.join(map(str, shape))}"
    array = bytes_of(dtype) * math.prod(shape)
    yield Workload(f"{label} forward", 2 * array, ours, theirs)
    yield Workload(f"{label} forward and backward", 5 * array, both, theirs_both)


def workloads(device: str) -> Iterator[partial[Iterator[Workload]]]:
    """Each is made when its turn comes, and forgotten after it: their arrays fill gigabytes."""
    small, torch = device == "cuemu", torch_on(device)
    matrix = (8, 64) if small else (8192, 4096)
    image = (2, 3, 16, 16) if small else (32, 64, 56, 56)
    for dtype in ("float32", "bfloat16"):
        for n in [10**4] if small else [10**6, 10**8]:
            yield partial(adamw, device, torch, dtype, n)
        for B, C in [(4, 1000), (2, 20_000)] if small else [(8192, 32768), (4096, 128256)]:
            yield partial(cross_entropy, device, torch, dtype, B, C)
        yield partial(norms, device, torch, dtype, "layer_norm", matrix)
        yield partial(norms, device, torch, dtype, "batch_norm", image)


def bench(device: str) -> Iterator[Row]:
    import fastdl

    copy = bandwidth(device)
    torch = torch_on(device)
    for make in workloads(device):
        try:
            for work in make():
                took = seconds(work.fastdl, lambda: fastdl.cuda.synchronize(device))
                row: Row = {"name": work.name, "seconds": took, "of_copy": work.bytes / took / copy}
                if work.torch:
                    row["torch_seconds"] = seconds(work.torch, torch.cuda.synchronize)
                yield row
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            yield {"name": " ".join(map(str, make.args)), "failures": [str(error)]}


# ---- stages -------------------------------------------------------------------------------------


def harness(device: str, size: int, names: tuple[str, ...]) -> Iterator[Row]:
    """A row for each kernel: how many cases, and what was wrong with them."""
    sys.path.insert(0, str(ROOT / "tests"))
    import harness as h  # type: ignore[import-not-found]
    from fastdl import _core
    from fastdl._array import to_device

    if not h.emulated():
        sys.exit("the harness needs fastdl built with FASTDL_CUEMU, as ./dev does")
    for kernel in h.kernels():
        if kernel.name not in h.emulated() or not kernel.name.startswith(names):
            continue
        failures, n = [], 0
        for case in kernel.cases:
            if math.prod([*case.sizes.values(), *(case.shape or ())]) > size:
                continue
            for dtype in h.dtypes_of(kernel):
                if not kernel.admits(case, dtype):
                    continue
                call, n = h.build(kernel, case, dtype), n + 1
                there: dict[str, Any] = {
                    k: to_device(a.copy(), device) for k, a in call.arrays.items()
                }
                try:
                    getattr(_core, kernel.name)(**there, **call.attributes)
                    h.judge(call, {k: there[k].numpy() for k in call.names("out", "inout")})
                except (AssertionError, RuntimeError, ValueError) as error:
                    failures.append(f"{case!r} {np.dtype(dtype)}: {error}")
        yield {"name": kernel.name, "cases": n, "failures": failures}


def rows_of(stage: str, device: str) -> Iterator[Row]:
    if stage == "copy":
        yield {"bytes_per_second": bandwidth(device)}
    elif stage == "bench":
        yield from bench(device)
    elif stage == "harness":
        yield from harness(device, CASE_SIZE if device == "cuda" else CHECKED_SIZE, ("",))
    else:
        yield from harness(device, CHECKED_SIZE, CHECKED)


def command_of(stage: str, device: str) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--stage", stage, "--device", device]
    if stage in ("memcheck", "racecheck"):
        return ["compute-sanitizer", "--tool", stage, "--error-exitcode", "9", *command]
    return command


def run_stage(stage: str, device: str) -> Row:
    """The rows that the stage has printed, and how it ended."""
    command = command_of(stage, device)
    if stage in ("memcheck", "racecheck") and (device != "cuda" or not shutil.which(command[0])):
        return {"stage": stage, "ended": "not run: needs a GPU and compute-sanitizer", "rows": []}
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS[stage], check=False
        )
        said, ended = done.stdout, "ok" if done.returncode == 0 else f"exit {done.returncode}"
        if done.returncode:
            sys.stderr.write(done.stdout[-2000:] + done.stderr[-4000:])
    except subprocess.TimeoutExpired as late:
        said, ended = (late.stdout or b"").decode(), f"stopped after {SECONDS[stage]} s"
    rows = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    if any(row.get("failures") for row in rows):
        ended = "failures"
    took = time.perf_counter() - start
    return {"stage": stage, "ended": ended, "took_seconds": round(took, 1), "rows": rows}


def show(found: Row) -> None:
    print(f"{found['stage']}: {found['ended']}, {found.get('took_seconds', 0)} s")
    for row in found["rows"]:
        for failure in row.get("failures", ()):
            print(f"  {row['name']}: {failure}")
        if "seconds" in row:
            line = (
                f"  {row['name']:45} {row['seconds'] * 1e6:10.1f} us {row['of_copy']:7.1%} of copy"
            )
            if "torch_seconds" in row:
                line += f"{row['torch_seconds'] / row['seconds']:8.2f}x torch"
            print(line)
        elif "bytes_per_second" in row:
            print(f"  {row['bytes_per_second'] / 1e9:.1f} GB/s")


def main() -> int:
    p = argparse.ArgumentParser(prog="./dev gpu", description=__doc__)
    p.add_argument("--device", choices=["cuda", "cuemu"], default="cuda")
    p.add_argument("--stage", choices=list(SECONDS), help="one of them, in this process")
    p.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    given = p.parse_args()
    if given.stage:
        for row in rows_of(given.stage, given.device):
            print(json.dumps(row), flush=True)
        return 0
    import fastdl

    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    found: Row = {"device": given.device, "cuda": str(fastdl.cuda.status()), "stages": []}
    found |= {"commit": commit.strip(), "time": now, "cpus": os.cpu_count()}
    path = given.out / f"{now}-{commit.strip()}-{given.device}.json"
    given.out.mkdir(parents=True, exist_ok=True)
    for stage in SECONDS:
        found["stages"].append(run_stage(stage, given.device))
        show(found["stages"][-1])
        path.write_text(json.dumps(found, indent=1))  # what is known stays known
    print(f"written to {path}")
    return int(any(not s["ended"].startswith(("ok", "not run")) for s in found["stages"]))


if __name__ == "__main__":
    sys.exit(main())
