"""A recorded program as a table."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from fastdl import _core

_HEAD = ("", "kernel", "bytes", "flop", "us", "%", "GB/s", "GF/s", "% peak", "arguments", "line")


@functools.cache
def _ceilings(backend: str) -> dict[str, Any]:
    """Measure the ceilings of the active backend; once for each."""
    assert backend == _core.backend()
    return _core.ceilings()


def floor_seconds(call: dict[str, Any]) -> float:
    """Return how long a call takes at least: its flop in registers or its bytes from the cache."""
    ceilings = _ceilings(_core.backend())
    flops = ceilings["float64" if "float64" in call["args"] else "float32"]
    fitting = [rate for size, rate in ceilings["copies"] if call["bytes"] <= size]
    bandwidth = max(fitting) if fitting else ceilings["copies"][-1][1]
    config = _core.config()
    work = call["bytes"] + call["flops"] / 4
    threads = min(max(1, work // config["work_per_thread"]), config["num_threads"])
    return float(max(call["flops"] / flops, call["bytes"] / bandwidth) / threads)


def listing(program: _core.Program) -> str:
    """Return the calls of a program with cost, time and place.

    ``us`` is the fastest of the timed replays, ``%`` the share of the whole, ``% peak`` the time
    that this machine's multiply-add rate and bandwidth would need, in percent of the time it took.
    A call marked ``+`` runs block by block with the one above, and is timed with it.
    """
    calls = program.calls()
    for c in calls:
        c["floor"] = floor_seconds(c) if c["timed"] else 0.0
        c["name"] = "+ " * c["joined"] + c["name"]
    whole = {key: sum(c[key] for c in calls) for key in ("bytes", "flops", "seconds", "floor")}
    total = whole["seconds"]
    rows = [_row(i, c, total) for i, c in enumerate(calls)]
    rows.append(_row("", {**whole, "name": "all", "args": "", "where": ""}, total))
    memory = program.memory()
    head = (
        f"program of {len(calls)} kernels: {whole['bytes']:,} B, {whole['flops']:,.0f} flop, "
        f"temporaries {memory['temporaries']:,} B ({memory['without_reuse']:,} B without reuse)"
    )
    return "\n".join([head, *_aligned([_HEAD, *rows])])


def _row(number: Any, call: dict[str, Any], total: float) -> tuple[str, ...]:
    seconds = call["seconds"]
    timed = ("",) * 5
    if seconds > 0:
        timed = (
            f"{seconds * 1e6:.2f}",
            f"{100 * seconds / total:.0f}",
            f"{call['bytes'] / seconds / 1e9:.1f}",
            f"{call['flops'] / seconds / 1e9:.1f}",
            f"{100 * call['floor'] / seconds:.0f}",
        )
    path, _, line = call["where"].rpartition(":")
    where = f"{Path(path).name}:{line}" if path else ""
    cost = f"{call['bytes']:,}", f"{call['flops']:,.0f}"
    return (str(number), call["name"], *cost, *timed, call["args"], where)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = {1, 9, 10}
    return [
        "  ".join(
            cell.ljust(w) if i in left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
