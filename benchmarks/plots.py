"""Plots of a file of results: the roofline, ratios to the peers, and cost against size."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

Row = dict[str, Any]
COLOURS = {
    "fastdl": "tab:red", "numpy": "tab:blue", "torch": "tab:orange", "torch_compile": "tab:brown",
    "jax": "tab:green", "sklearn": "tab:purple",
}  # fmt: skip


def colour(contender: str) -> str:
    return COLOURS.get(contender.partition("/")[0].partition("@")[0], "gray")


def read(path: Path) -> tuple[Row, list[Row]]:
    """The head, and the times with warm caches."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    head = next(r for r in rows if r["record"] == "run")
    return head, [r for r in rows if r["record"] == "time" and r["mode"] == "warm"]


def write(path: Path) -> list[Path]:
    """Write the PNG files of a file of results beside it."""
    import matplotlib as mpl

    mpl.use("Agg")
    head, rows = read(path)
    made = []
    for threads in head["threads"]:
        own = [r for r in rows if r["threads"] == threads]
        for name, draw in (("roofline", roofline), ("ratios", ratios), ("scaling", scaling)):
            target = path.with_name(f"{path.stem}-{name}-{threads}t.png")
            if draw(head, own, threads, target):
                made.append(target)
    return made


def roofline(head: Row, rows: list[Row], threads: int, target: Path) -> bool:
    """GFLOP/s against flop per byte, with the ceilings of this machine."""
    import matplotlib.pyplot as plt

    rows = [r for r in rows if r["flops"] and r["bytes"]]
    fma = head["ceilings"]["fma"].get(rows[0]["isa"]) if rows else None
    if not rows or not fma:
        return False
    peak = fma["float32"][str(threads)]
    fig, ax = plt.subplots(figsize=(9, 6))
    span = [0.05, 2000.0]
    for kind, label in ((0, "cache"), (-1, "RAM")):
        rate = head["ceilings"]["bandwidth"][str(threads)]["copy"][kind][1]
        knee = peak / rate
        ax.plot([span[0], knee, span[1]], [rate * span[0], peak, peak], color="gray", lw=1)
        ax.annotate(f"copy in {label} {rate:.0f} GB/s", (span[0], rate * span[0]), fontsize=8)
    ax.annotate(f"{rows[0]['isa']} multiply-adds {peak:.0f} GFLOP/s", (20, peak * 1.05), fontsize=8)
    points = defaultdict(list)
    for r in rows:
        points[r["contender"]].append((r["flops"] / r["bytes"], r["flops"] / r["us"] / 1e3))
    for contender, at in points.items():
        size = 36 if contender == "fastdl" else 14
        x, y = zip(*at, strict=True)
        ax.scatter(x, y, s=size, color=colour(contender), label=contender)
    ax.set(xscale="log", yscale="log", xlabel="flop per byte", ylabel="GFLOP/s", ylim=(0.1, None))
    ax.set_title(_title(head, threads))
    ax.legend(fontsize=8)
    return _save(fig, target)


def ratios(head: Row, rows: list[Row], threads: int, target: Path) -> bool:
    """How many times as long each peer takes, by case."""
    import matplotlib.pyplot as plt

    cases: dict[str, dict[str, float]] = defaultdict(dict)
    for r in rows:
        cases[f"{r['benchmark']} {r['case']}"][r["contender"]] = r["us"]
    peers = sorted({c for times in cases.values() for c in times if c != "fastdl"})
    if not peers:
        return False
    height = 0.8 / len(peers)
    fig, ax = plt.subplots(figsize=(9, 1.5 + 0.12 * len(cases) * (len(peers) + 1)))
    for i, peer in enumerate(peers):
        at = [j + i * height for j, times in enumerate(cases.values()) if peer in times]
        bars = [times[peer] / times["fastdl"] for times in cases.values() if peer in times]
        ax.barh(at, bars, height, color=colour(peer), alpha=0.5 if "/" in peer else 1, label=peer)
    ax.axvline(1, color="black", lw=1)
    ax.set_yticks([j + 0.4 - height / 2 for j in range(len(cases))], list(cases), fontsize=7)
    ax.set(xscale="log", xlabel="time over fastdl's: right of the line is slower than fastdl")
    ax.invert_yaxis()
    ax.set_title(_title(head, threads))
    ax.legend(fontsize=8)
    return _save(fig, target)


def scaling(head: Row, rows: list[Row], threads: int, target: Path) -> bool:
    """Time against each size of the benchmark `scaling`."""
    import matplotlib.pyplot as plt

    rows = [r for r in rows if r["benchmark"] == "scaling"]
    dims = sorted({r["case"].partition("=")[0] for r in rows})
    if not dims:
        return False
    fig, axes = plt.subplots(1, len(dims), figsize=(4.5 * len(dims), 4.5), squeeze=False)
    for ax, dim in zip(axes[0], dims, strict=True):
        lines = defaultdict(list)
        for r in rows:
            name, _, size = r["case"].partition("=")
            if name == dim:
                lines[r["contender"]].append((int(size), r["us"]))
        for contender, at in lines.items():
            ax.plot(*zip(*at, strict=True), "o-", ms=3, color=colour(contender), label=contender)
        size, us = lines["fastdl"][-1]
        line = [(s, us * s / size) for s, _ in lines["fastdl"]]
        ax.plot(*zip(*line, strict=True), ":", color="gray", label="in proportion")
        ax.set(xscale="log", yscale="log", xlabel=dim, ylabel="us")
        ax.legend(fontsize=8)
    fig.suptitle(_title(head, threads))
    return _save(fig, target)


def _title(head: Row, threads: int) -> str:
    noun = "thread" if threads == 1 else "threads"
    return f"{head['machine']}, {threads} {noun}, commit {head['commit']}"


def _save(fig: Any, target: Path) -> bool:
    import matplotlib.pyplot as plt

    fig.tight_layout()
    fig.savefig(target, dpi=120)
    plt.close(fig)
    return True
