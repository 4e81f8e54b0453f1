"""Run benchmarks: ``python -m benchmarks [NAME...] [OPTION...]``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks import harness, workload
from benchmarks.driver import WorkerError
from benchmarks.rounds import Plan

RESULTS = Path(__file__).parent / "results"
PEERS = "torch,jax,numpy,sklearn"


def usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def numbers(text: str) -> list[int]:
    found = [int(t) for t in text.split(",")]
    if not all(1 <= n <= usable_cpus() for n in found):
        raise argparse.ArgumentTypeError(f"must be 1 to {usable_cpus()}, the CPUs here, got {text}")
    return found


def libraries(text: str) -> list[str]:
    found = [t for t in text.split(",") if t]
    known = sorted(set(workload.PACKAGES) - {"fastdl"})
    unknown = [t for t in found if t not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"must be of {', '.join(known)}, got {unknown[0]!r}")
    return found


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="./dev bench", description="Compare fastdl with its peers and with what is possible."
    )
    p.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(workload.names())}")
    p.add_argument("--peers", type=libraries, help=f"default {PEERS}; also torch_compile")
    p.add_argument("--threads", type=numbers, help="such as 1,2; default 1 and all CPUs")
    p.add_argument("--quick", action="store_true", help="few cases, short rounds: a minute")
    p.add_argument("--against", default="", metavar="REV", help="also another revision of fastdl")
    p.add_argument("--plot", action="store_true", help="write PNG files beside the results")
    p.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    p.add_argument("--rounds", type=int, help="rounds per contender")
    p.add_argument("--seconds", type=float, help="length of a round")
    return p


def options(arguments: list[str]) -> harness.Options:
    p = parser()
    given = p.parse_args(arguments)
    known = workload.names()
    for name in given.names:
        if name not in known:
            p.error(f"{name!r} must be one of {', '.join(known)}")
    rounds, seconds = (4, 0.02) if given.quick else (9, 0.1)
    rounds = given.rounds or rounds
    return harness.Options(
        names=given.names or known,
        peers=given.peers if given.peers is not None else libraries(PEERS),
        threads=given.threads or sorted({1, usable_cpus()}),
        quick=given.quick,
        plan=Plan(rounds, given.seconds or seconds, rounds // 2),
        out=given.out,
        against=given.against,
        plot=given.plot,
    )


def main(arguments: list[str]) -> int:
    chosen = options(arguments)
    try:
        path = harness.execute(chosen)
        if chosen.plot:
            from benchmarks import plots

            for made in plots.write(path):
                print(made)
    except (ValueError, WorkerError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
