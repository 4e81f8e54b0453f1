"""A recorded program as a table."""

from __future__ import annotations

import os
from typing import Any

from fastdl import _core

_HEAD = ("", "kernel", "bytes", "flop", "us", "%", "GB/s", "GF/s", "arguments", "line")


def listing(program: _core.Program) -> str:
    """Return the calls of a program with cost, time and place.

    ``us`` is the mean of the timed replays, ``%`` the share of the whole.
    """
    calls = program.calls()
    total = sum(c["seconds"] for c in calls)
    rows = [_row(i, c, total) for i, c in enumerate(calls)]
    bytes_, flops = sum(c["bytes"] for c in calls), sum(c["flops"] for c in calls)
    whole = {"name": "all", "bytes": bytes_, "flops": flops, "seconds": total}
    rows.append(_row("", {**whole, "args": "", "where": ""}, total))
    memory = program.memory()
    head = (
        f"program of {len(calls)} kernels: {bytes_:,} B, {flops:,.0f} flop, temporaries "
        f"{memory['temporaries']:,} B ({memory['without_reuse']:,} B without reuse)"
    )
    return "\n".join([head, *_aligned([_HEAD, *rows])])


def _row(number: Any, call: dict[str, Any], total: float) -> tuple[str, ...]:
    seconds = call["seconds"]
    timed = ("", "", "", "")
    if seconds > 0:
        timed = (
            f"{seconds * 1e6:.2f}",
            f"{100 * seconds / total:.0f}",
            f"{call['bytes'] / seconds / 1e9:.1f}",
            f"{call['flops'] / seconds / 1e9:.1f}",
        )
    path, _, line = call["where"].rpartition(":")
    where = f"{os.path.basename(path)}:{line}" if path else ""
    cost = f"{call['bytes']:,}", f"{call['flops']:,.0f}"
    return (str(number), call["name"], *cost, *timed, call["args"], where)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = {1, 8, 9}
    return [
        "  ".join(
            cell.ljust(w) if i in left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
