"""How long a call takes: median and spread, after a warm-up."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np


def time_call(name: str, call: Callable[[], object], seconds: float = 1.0) -> float:
    """Print and return the median time of a call in microseconds."""
    for _ in range(10):
        call()
    times = []
    stop = time.perf_counter() + seconds
    while len(times) < 100 or time.perf_counter() < stop:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    low, median, high = np.percentile(times, [10, 50, 90]) * 1e6
    print(f"{name:<40} {median:10.2f} us   (p10 {low:.2f}, p90 {high:.2f}, {len(times)} calls)")
    return float(median)
