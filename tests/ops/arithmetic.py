"""Y = X + other, X - other, X other;  what broadcasting makes of them is in test_arithmetic.py.

dX = dY, dother = dY;  dX = dY, dother = -dY;  dX = dY other, dother = dY X.
"""

from __future__ import annotations

from opcase import EDGE_SHAPES, Array, Case, Error, Gradient, Kernel, Public


def add_forward(X: Array, other: Array) -> dict[str, Array]:
    return {"Y": X + other}


def add_backward(dY: Array) -> dict[str, Array]:
    return {"dX": dY, "dother": dY}


def sub_forward(X: Array, other: Array) -> dict[str, Array]:
    return {"Y": X - other}


def sub_backward(dY: Array) -> dict[str, Array]:
    return {"dX": dY, "dother": -dY}


def mul_forward(X: Array, other: Array) -> dict[str, Array]:
    return {"Y": X * other}


def mul_backward(dY: Array, X: Array, other: Array) -> dict[str, Array]:
    return {"dX": dY * other, "dother": dY * X}


def error(op: str) -> Error:
    return Error(
        Case(shape=(2, 3)),
        {"other": (3,)},
        f"{op}: other must be float32(2, 3), the shape of X, got float32(3,)",
    )


PAIRS = [(add_forward, add_backward), (sub_forward, sub_backward), (mul_forward, mul_backward)]
CALLS = {
    "add": lambda fd, a, **options: fd.ops.add(a["X"], a["other"], **options),
    "sub": lambda fd, a, **options: fd.ops.sub(a["X"], a["other"], **options),
    "mul": lambda fd, a, **options: fd.ops.mul(a["X"], a["other"], **options),
}

KERNELS = [
    Kernel(
        forward,
        cases=[Case(shape=s) for s in EDGE_SHAPES],
        errors=[error(forward.__name__)],
        exact=True,
        inplace=("Y=X", "Y=other"),
        specials="X other",
        gradient=Gradient([Case(shape=(4, 5))], {"X": "dX", "other": "dother"}, "Y", backward),
        public=Public(name, Case(shape=(6, 5)), call),
    )
    for (forward, backward), (name, call) in zip(PAIRS, CALLS.items(), strict=True)
]
