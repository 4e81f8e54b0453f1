"""The table on the screen and the lines in the file."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.harness import Run

Row = Mapping[str, Any]


class Sheet:
    """A file of results, one JSON object per line, written as they come."""

    def __init__(self, folder: Path, commit: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
        self.path = folder / f"{stamp}-{commit.replace('+', '-changed') or 'nogit'}.jsonl"

    def write(self, row: Row) -> None:
        with open(self.path, "a") as f:
            f.write(json.dumps(row) + "\n")


def note(text: str) -> None:
    print(f"  {text}", flush=True)


def duration(us: float) -> str:
    """Three digits, in the unit that suits."""
    for limit, unit, factor in ((1e3, "us", 1.0), (1e6, "ms", 1e-3)):
        if us < limit:
            return f"{us * factor:.3g} {unit}"
    return f"{us * 1e-6:.3g} s"


class Table:
    """One benchmark at one number of threads; a line per case."""

    WIDTH = 12

    def __init__(self, name: str, threads: int, contenders: Sequence[str]) -> None:
        self.title = f"{name}, {threads} thread{'s' if threads > 1 else ''}"
        self.contenders = contenders
        self._started = False

    def add(self, rows: Sequence[Row]) -> None:
        if not self._started:
            self._start()
        by_name = {row["contender"]: row for row in rows}
        own = by_name["fastdl"]
        cells = [self._cell(by_name.get(c)) for c in self.contenders]
        case = own["case"] + (" (cold)" if own["mode"] == "cold" else "")
        line = "".join(f"{cell:>{self._width(c)}}" for c, cell in zip(self.contenders, cells))  # noqa: B905
        spread = f"{duration(own['p10_us'])}-{duration(own['p90_us'])}"
        dismissed = sum(row["dismissed"] for row in rows)
        print(
            f"{case:<32}{line}{self._percent(own):>11}{self._ratio(own):>18}  {spread:<18}"
            f" {dismissed}/{sum(row['rounds'] for row in rows)}",
            flush=True,
        )

    def _start(self) -> None:
        self._started = True
        names = "".join(f"{c:>{self._width(c)}}" for c in self.contenders)
        print(f"\n{self.title}")
        print(
            f"{'':<32}{names}{'ceiling':>11}{'best peer':>18}  {'p10-p90':<18} dismissed",
            flush=True,
        )

    def _width(self, contender: str) -> int:
        return max(self.WIDTH, len(contender) + 2)

    @staticmethod
    def _cell(row: Row | None) -> str:
        if row is None:
            return "-"
        return duration(row["us"]) + ("*" if row["indicative"] else " ")

    @staticmethod
    def _percent(row: Row) -> str:
        percent = row["percent_of_ceiling"]
        return "-" if percent is None else f"{percent:.0f}% {row['bound'][:3]}"

    @staticmethod
    def _ratio(row: Row) -> str:
        if row["best_peer"] is None:
            return "-"
        return f"{row['best_peer_over_this']:.2f}x {row['best_peer']}"


def print_head(run: Run) -> None:
    print(f"{run.machine}; commit {run.commit or 'unknown'}")
    for library, why in run.absent.items():
        print(f"absent: {library} ({why})")
    if run.ceilings.note:
        print(run.ceilings.note)
    for isa, dtypes in run.ceilings.fma.items():
        rates = [f"{d} {' / '.join(f'{r:.0f}' for r in t.values())}" for d, t in dtypes.items()]
        print(f"multiply-adds, {isa}: {', '.join(rates)} GFLOP/s")
    for threads, kinds in run.ceilings.bandwidth.items():
        rates = [f"{kind} {c[0][1]:.0f} .. {c[-1][1]:.0f}" for kind, c in kinds.items()]
        print(f"memory, {threads} threads, cache .. RAM: {', '.join(rates)} GB/s")
    if run.state:
        print(f"state: {state_text(run.state)}")


def state_text(state: Mapping[str, float]) -> str:
    return (
        f"fork and join {state['fork_join_us']} us, traffic of Adam {state['adam_gbs_1']} GB/s by "
        f"one CPU, {state['adam_gbs_2']} by two"
    )


def print_end(run: Run, state: Mapping[str, float], alike: bool, path: Path, taken: float) -> None:
    print()
    if state:
        print(f"state afterwards: {state_text(state)}")
    if not alike:
        print("the state of the CPUs changed during the run: do not compare times with 2 threads")
    if any(row["indicative"] for row in run.rows):
        print("* fewer than 3 undisturbed rounds: an indication only")
    print(f"{taken:.0f} s; results in {path}")
