"""Run benchmarks: ``python -m benchmarks [NAME...]``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import fastdl


def main(names: list[str]) -> int:
    known = sorted(p.stem for p in Path(__file__).parent.glob("[!_]*.py") if p.stem != "timing")
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"bench: {unknown[0]!r} must be one of {', '.join(known)}", file=sys.stderr)
        return 2
    print(f"fastdl {fastdl.__version__}")
    print(fastdl.show_config())
    for name in names or known:
        importlib.import_module(f"benchmarks.{name}").run()
    return 0


sys.exit(main(sys.argv[1:]))
