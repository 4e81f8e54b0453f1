"""One run: ceilings, then every case with all contenders in turn, then the state once more."""

from __future__ import annotations

import datetime
import platform
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import against, ceilings, driver, report, rounds, workload
from benchmarks.ceilings import Ceilings
from benchmarks.driver import Worker, WorkerError
from benchmarks.rounds import Entry, Plan, Times
from benchmarks.workload import Case, Workload

Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    names: Sequence[str]
    peers: Sequence[str]
    threads: Sequence[int]
    quick: bool
    plan: Plan
    out: Path
    against: str = ""
    plot: bool = False


@dataclass
class Run:
    """What every line of the results says."""

    options: Options
    commit: str = ""
    machine: str = ""
    ceilings: Ceilings = field(default_factory=Ceilings)
    state: Mapping[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    revision: tuple[str, Path] | None = None
    rows: list[Row] = field(default_factory=list)

    def contenders(self, work: Workload) -> list[str]:
        """Those of this run, the other revision included."""
        wanted = {"fastdl", *self.options.peers} - set(self.absent)
        found = [c for c in work.contenders if workload.library_of(c) in wanted]
        if self.revision is not None:
            found.insert(1, f"fastdl@{self.revision[0]}")
        return found


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(t.partition(":")[2].strip() for t in lines if t.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def free_megabytes() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(t.split()[1]) / 1e3 for t in lines if t.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return float("inf")


# ---- the workers --------------------------------------------------------------------------------


class Crew:
    """The workers of one number of threads."""

    def __init__(self, run: Run, threads: int, works: Sequence[Workload]) -> None:
        self.run, self.threads = run, threads
        self._workers: dict[str, Worker] = {}
        needed = {self._home(c) for work in works for c in run.contenders(work)}
        for home in sorted(needed):
            try:
                self._workers[home] = self._start(home)
            except WorkerError as error:
                run.absent[home] = str(error)
        if "fastdl" not in self._workers:
            self.close()
            raise WorkerError(run.absent["fastdl"])

    @staticmethod
    def _home(contender: str) -> str:
        """Which process: one per library, and one for the other revision."""
        return contender if "@" in contender else workload.library_of(contender)

    def _start(self, home: str) -> Worker:
        site = self.run.revision[1] if self.run.revision and "@" in home else None
        return Worker(workload.library_of(home), self.threads, site)

    def close(self) -> None:
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    @property
    def isa(self) -> str:
        return str(self._workers["fastdl"].info["isa"])

    def version(self, contender: str) -> str:
        return str(self._workers[self._home(contender)].info["version"])

    def load(
        self, work: Workload, case: Case
    ) -> tuple[dict[str, Entry], list[Row], dict[str, str]]:
        """Prepare the contenders of a case: entries, kernels of fastdl, and who could not."""
        entries: dict[str, Entry] = {}
        kernels: list[Row] = []
        failed: dict[str, str] = {}
        for contender in self.run.contenders(work):
            worker = self._workers.get(self._home(contender))
            if worker is None:
                continue
            what = {"benchmark": work.name, "case": case.name, "contender": contender}
            try:
                answer = worker.ask("load", seconds=self.run.options.plan.seconds, **what)
            except WorkerError as error:
                failed[contender] = str(error)
                self._replace_dead(contender)
                continue
            if "cannot" not in answer:
                entries[contender] = Entry(worker, answer["calls"], self._peak(contender, case))
                kernels = answer["kernels"] if contender == "fastdl" else kernels
        return entries, kernels, failed

    def _peak(self, contender: str, case: Case) -> Row | None:
        if contender != "fastdl" or self.run.ceilings.note:
            return None
        return {"isa": self.isa, "dtype": case.dtype, "threads": self.threads}

    def _replace_dead(self, contender: str) -> None:
        worker = self._workers[self._home(contender)]
        if not worker.alive:
            worker.close()
            self._workers[self._home(contender)] = self._start(self._home(contender))

    def drop(self) -> None:
        for worker in self._workers.values():
            worker.ask("drop")


# ---- a case -------------------------------------------------------------------------------------


def floor_us(
    run: Run, kernels: Sequence[Row], traffic: str, peak: float | None, threads: int
) -> tuple[float | None, str]:
    """The time that the ceilings allow, and which of them weighs more.

    A kernel takes as long as its arithmetic or its traffic, whichever is longer.  The traffic rate
    is that of arrays of this size: what fits a cache is held against the cache.
    """
    total, of_fma = 0.0, 0.0
    for k in kernels:
        rate = run.ceilings.rate(traffic, k["size"], threads)
        if peak is None or rate is None:
            return None, ""
        arithmetic, memory = k["flops"] / peak / 1e3, k["bytes"] / rate / 1e3
        total += max(arithmetic, memory)
        of_fma += arithmetic if arithmetic >= memory else 0.0
    return (total, "fma" if of_fma >= total / 2 else "memory") if total else (None, "")


def best_peer(times: Mapping[str, Times]) -> tuple[str, float] | None:
    peers = {c: t.summary()["us"] for c, t in times.items() if not c.startswith("fastdl")}
    return min(peers.items(), key=lambda p: p[1]) if peers else None


def make_rows(
    crew: Crew, work: Workload, case: Case, mode: str, times: Mapping[str, Times],
    kernels: Sequence[Row],
) -> list[Row]:  # fmt: skip
    run, threads = crew.run, crew.threads
    peaks = times["fastdl"].peaks
    short = run.ceilings.peak(crew.isa, case.dtype, threads)
    peak = statistics.median(peaks) if peaks else short
    floor, bound = floor_us(run, kernels, work.traffic, peak, threads)
    best = best_peer(times)
    rows = []
    for contender, measured in times.items():
        summary = measured.summary()
        rows.append(
            {
                "record": "time",
                "commit": run.commit,
                "machine": run.machine,
                "state": dict(run.state),
                "threads": threads,
                "benchmark": work.name,
                "case": case.name,
                "mode": mode,
                "dtype": case.dtype,
                "contender": contender,
                "version": crew.version(contender),
                **summary,
                "flops": sum(k["flops"] for k in kernels),
                "bytes": sum(k["bytes"] for k in kernels),
                "isa": crew.isa,
                "peak_gflops": peak,
                "bound": bound,
                "floor_us": floor,
                "percent_of_ceiling": 100 * floor / summary["us"] if floor else None,
                "best_peer": best[0] if best else None,
                "best_peer_over_this": best[1] / summary["us"] if best else None,
            }
        )
    return rows


def measure_case(crew: Crew, work: Workload, case: Case) -> Iterator[list[Row]]:
    """The rows of a case, warm and where it makes sense cold; says why there are none."""
    needed = 1.5 * case.megabytes * len(crew.run.contenders(work))
    free = free_megabytes()
    if needed > free:
        report.note(f"{case.name}: left out, needs {needed:.0f} MB, {free:.0f} MB are free")
        return
    try:
        entries, kernels, failed = crew.load(work, case)
        for error in failed.values():
            report.note(f"{case.name}: {error}")
        if "fastdl" not in entries:
            return
        for mode in ("warm", "cold") if case.cold else ("warm",):
            times = rounds.alternate(entries, crew.run.options.plan, mode == "cold")
            yield make_rows(crew, work, case, mode, times, kernels)
    finally:
        crew.drop()


# ---- the whole ----------------------------------------------------------------------------------


def prepare(options: Options) -> Run:
    run = Run(options, against.commit(), processor())
    run.absent = {p: "not installed" for p in options.peers if not driver.installed(p)}
    if options.against:
        run.revision = against.build(options.against)
    run.state = ceilings.probe(options.quick)
    run.ceilings = ceilings.measure(list(options.threads), options.quick)
    return run


def head(run: Run) -> Row:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "record": "run",
        "time": now.isoformat(timespec="seconds"),
        "commit": run.commit,
        "against": run.revision[0] if run.revision else None,
        "machine": run.machine,
        "system": platform.platform(),
        "python": platform.python_version(),
        "threads": list(run.options.threads),
        "rounds": run.options.plan.rounds,
        "seconds": run.options.plan.seconds,
        "state": dict(run.state),
        "absent": run.absent,
        "ceilings": run.ceilings.as_dict(),
    }


def execute(options: Options) -> Path:
    """Run, print, and write the results; returns their file."""
    start = time.perf_counter()
    works = [workload.load(name) for name in options.names]
    run = prepare(options)
    sheet = report.Sheet(options.out, run.commit)
    report.print_head(run)
    sheet.write(head(run))
    for threads in options.threads:
        crew = Crew(run, threads, works)
        try:
            for work in works:
                _measure_work(crew, work, sheet)
        finally:
            crew.close()
    state = ceilings.probe(options.quick)
    alike = ceilings.alike(dict(run.state), state)
    taken = round(time.perf_counter() - start, 1)
    sheet.write({"record": "end", "state": state, "state_alike": alike, "seconds": taken})
    report.print_end(run, state, alike, sheet.path, taken)
    return sheet.path


def _measure_work(crew: Crew, work: Workload, sheet: report.Sheet) -> None:
    table = report.Table(work.name, crew.threads, crew.run.contenders(work))
    for case in work.cases:
        if crew.run.options.quick and not case.quick:
            continue
        for rows in measure_case(crew, work, case):
            crew.run.rows += rows
            table.add(rows)
            for row in rows:
                sheet.write(row)
