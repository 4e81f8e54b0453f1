"""Rounds of all contenders in turn, and what they say together."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.driver import Worker

#: Share of a CPU that other processes may use during a round.
FOREIGN = 0.06
#: Fewer undisturbed rounds than this are an indication only.
ENOUGH = 3


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    rounds: int
    seconds: float
    #: How many rounds may be repeated because others disturbed them.
    spare: int


@dataclass
class Times:
    """The rounds of one contender, in microseconds per call."""

    clean: list[float] = field(default_factory=list)
    disturbed: list[tuple[float, float]] = field(default_factory=list)  # (foreign share, time)
    #: GFLOP/s of multiply-adds in registers, after each undisturbed round.
    peaks: list[float] = field(default_factory=list)

    def add(self, answer: Mapping[str, Any], seconds: list[float]) -> None:
        wall = answer["wall"]
        share = max(answer["foreign"], answer["waited"]) / wall
        if share <= FOREIGN:
            self.clean += [s * 1e6 for s in seconds]
            self.peaks += [answer["peak"]] if answer.get("peak") else []
        else:
            self.disturbed += [(share, s * 1e6) for s in seconds]

    @property
    def indicative(self) -> bool:
        return len(self.clean) < ENOUGH

    @property
    def used(self) -> list[float]:
        """The undisturbed rounds; where there are too few, the least disturbed half of all."""
        if not self.indicative:
            return self.clean
        rest = [t for _, t in sorted(self.disturbed)]
        half = max(1, (len(self.clean) + len(rest) + 1) // 2)
        return (self.clean + rest)[: max(half, len(self.clean))]

    def summary(self) -> dict[str, float | int | bool]:
        low, median, high = (float(x) for x in np.percentile(self.used, [10, 50, 90]))
        return {
            "us": median,
            "p10_us": low,
            "p90_us": high,
            "rounds": len(self.clean) + len(self.disturbed),
            "dismissed": len(self.disturbed),
            "indicative": self.indicative,
        }


@dataclass(frozen=True)
class Entry:
    """A contender that is ready: where it runs, and how many calls make a round."""

    worker: Worker
    calls: int
    #: What `ceilings.fma_now` measures after each of its rounds.
    peak: Mapping[str, Any] | None = None


def alternate(entries: Mapping[str, Entry], plan: Plan, swept: bool) -> dict[str, Times]:
    """Rounds in turn, starting with another contender each time.

    All contenders go on until each has enough undisturbed rounds or the spare ones are used up, so
    that all of them have seen the same times.
    """
    times = {name: Times() for name in entries}
    order = list(entries)
    wanted = min(plan.rounds, ENOUGH) if swept else plan.rounds
    for i in range(wanted + plan.spare):
        if i >= wanted and all(len(t.clean) >= wanted for t in times.values()):
            break
        for name in order[i % len(order) :] + order[: i % len(order)]:
            entry = entries[name]
            time.sleep(0.002)  # threads of the last one stop spinning
            calls = min(3, entry.calls) if swept else entry.calls
            what = {"contender": name, "calls": calls, "swept": swept, "peak": entry.peak}
            answer = entry.worker.ask("round", **what)
            times[name].add(answer, answer["seconds"])
    return times
