"""Affine in bf16, without activation: forward, and forward with all three gradients.

Our arrays are float32 and rounded on the way.  `torch/mm` gets bf16 tensors and leaves bf16 ones,
which is half the memory; `torch/autocast` converts float32 tensors as we do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import affine
from benchmarks.workload import Call, Case

TRAFFIC = affine.TRAFFIC

CASES = [c for c in affine.CASES if c.dtype == "float32" and c["B"] > 1]


def _fastdl(case: Case, precision: str) -> Call:
    if case["product"]:
        return affine.kernel_product(case, precision)
    from fastdl import _core

    X, W, b, dY = affine._arrays(case)
    Y, dX, dW, db = (np.empty_like(a) for a in (dY, X, W, b))

    def forward() -> None:
        _core.affine_forward(X, W, b, Y, precision=precision)

    def full() -> None:
        forward()
        _core.affine_backward(dY, X, W, None, dX, dW, db, precision=precision)

    return Call(full if case["full"] else forward)


def fastdl(case: Case) -> Call:
    return _fastdl(case, "bf16")


def fastdl_float32(case: Case) -> Call:
    return _fastdl(case, "full")


def torch_mm(case: Case) -> Call | None:
    """Products of bf16 tensors into given outputs, no autograd."""
    if case["product"]:
        return None
    import torch

    X, W, b, dY = (torch.from_numpy(a).bfloat16() for a in affine._arrays(case))
    Y, dX, dW, db = (torch.empty_like(a) for a in (dY, X, W, b))

    def run() -> None:
        with torch.inference_mode():
            torch.addmm(b, X, W, out=Y)
            if case["full"]:
                torch.mm(dY, W.T, out=dX)
                torch.mm(X.T, dY, out=dW)
                torch.sum(dY, 0, out=db)

    return Call(run)


def torch_autocast(case: Case) -> Call | None:
    """`linear` under autocast, which converts float32 tensors."""
    if case["product"]:
        return None
    import torch
    from torch.nn import functional

    X, W, b, dY = (torch.from_numpy(a) for a in affine._arrays(case))
    inputs = [X, W.T.contiguous(), b]
    dY = dY.bfloat16()

    def layer() -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return functional.linear(*inputs)

    def forward() -> Any:
        with torch.no_grad():
            return layer()

    def full() -> Any:
        return torch.autograd.grad(layer(), inputs, dY)

    for t in inputs if case["full"] else ():
        t.requires_grad_()
    return Call(full if case["full"] else forward)


CONTENDERS = {
    "fastdl": fastdl,
    "fastdl/float32": fastdl_float32,
    "torch/mm": torch_mm,
    "torch/autocast": torch_autocast,
}
