"""Cost against size, over three decades: the batch, the inputs and the outputs of a layer.

A straight line of slope 1 in the plot is a cost in proportion to the work.
"""

from __future__ import annotations

from benchmarks import affine
from benchmarks.workload import Case

TRAFFIC = "copy"

BASE = {"B": 64, "n": 256, "m": 256}
STEPS = (4, 16, 64, 256, 1024, 4096)


def _case(dim: str, size: int) -> Case:
    sizes = {**BASE, dim: size}
    megabytes = 4 * (sizes["B"] * (sizes["n"] + sizes["m"]) + sizes["n"] * sizes["m"]) / 1e6
    return Case(
        f"{dim}={size}",
        {**sizes, "full": True, "swept": dim, "size": size},
        quick=dim == "B" and size in (4, 256, 4096),
        megabytes=2 * megabytes,
    )


CASES = [_case(dim, size) for dim in BASE for size in STEPS]

CONTENDERS = {name: affine.CONTENDERS[name] for name in ("fastdl", "numpy", "torch", "jax")}
