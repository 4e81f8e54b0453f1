"""precision="bf16": the same bits from every unit, in the documented order, and its interface."""

from __future__ import annotations

from typing import Any

import fastdl as fd
import numpy as np
import pytest
from fastdl import _core, ops
from harness import CPU_BACKENDS, bits_equal
from opcase import Array
from ops import affine as reference

UNITS = ("fma", "dot", "amx")
HERE = UNITS[: UNITS.index(_core.config()["bf16_unit"]) + 1]
WAYS = [(b, u) for b in CPU_BACKENDS for u in (HERE if b == "avx512" else HERE[:1])]

SHAPES = [
    (1, 1, 1),
    (5, 17, 3),
    (16, 32, 16),
    (33, 47, 65),
    (70, 1030, 40),
    (500, 20, 33),
    (700, 400, 64),
]


def gradients(dY: Array, X: Array, W: Array, b: Array) -> tuple[Array, ...]:
    Y = ops.affine(X, W, b, precision="bf16")
    return (Y, *ops.affine_backward(dY, X, W, precision="bf16"))


def by_way(*arrays: Array) -> list[tuple[str, tuple[Array, ...]]]:
    results = []
    for backend, unit in WAYS:
        _core.use_backend(backend)
        _core.use_bf16_unit(unit)
        results.append((f"{backend} {unit}", gradients(*arrays)))
    return results


def arrays(shape: tuple[int, int, int]) -> list[Array]:
    rng = np.random.default_rng(0)
    B, n, m = shape
    return [rng.standard_normal(s).astype(np.float32) for s in ((B, m), (B, n), (n, m), (m,))]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_unit_gives_the_same_bits(shape: tuple[int, int, int]) -> None:
    (_, first), *others = by_way(*arrays(shape))
    for way, result in others:
        for name, a, b in zip(("Y", "dX", "dW", "db"), first, result, strict=True):
            assert bits_equal(a, b) or (name == "db" and "generic" in way), f"{way}: {name}"


@pytest.mark.parametrize("exponents", [(-63, -63), (-100, -30), (-126, 0), (60, 67), (127, 0)])
def test_subnormal_and_infinite_products(exponents: tuple[int, int]) -> None:
    """Not on the generic backend: without fma, a product is rounded before it is added."""
    dY, X, W, b = arrays((33, 47, 65))
    with np.errstate(all="ignore"):
        dY, X = np.ldexp(dY, exponents[0]), np.ldexp(X, exponents[0])
        W, b = np.ldexp(W, exponents[1]), np.ldexp(b, -126)
        results = [(w, r) for w, r in by_way(dY, X, W, b) if "generic" not in w]
    for way, result in results[1:]:
        assert all(map(bits_equal, result[:3], results[0][1][:3])), way
    assert np.float32(1e-40) * np.float32(1) > 0, "subnormal numbers are 0 after the call too"


def documented(X: Array, W: Array) -> Array:
    """The sums of docs/numerics.md in NumPy: products of bf16 are exact in float32."""
    X, W = reference.rounded(X, "bf16"), reference.rounded(W, "bf16")
    total = np.zeros((X.shape[0], W.shape[1]), np.float32)
    for step in range(0, X.shape[1], 32):
        chains = np.zeros((2, *total.shape), np.float32)
        for k in range(step, min(step + 32, X.shape[1])):
            chains[(k - step) // 16] += X[:, k, None] * W[k]
        total += chains[0] + chains[1]
    return total


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_have_the_documented_order(backend: str, shape: tuple[int, int, int]) -> None:
    _, X, W, _ = arrays(shape)
    np.testing.assert_array_equal(ops.affine(X, W, precision="bf16"), documented(X, W))


def test_layers_and_models_pass_it_on() -> None:
    dY, X, W, b = arrays((6, 40, 3))
    layer = fd.nn.Affine(40, 3, precision="bf16")
    layer.load_state_dict({"W": W, "b": b})
    want = gradients(dY, X, W, b)
    assert bits_equal(layer(X), want[0])
    dX = layer.backward(dY)
    assert dX is not None and bits_equal(dX, want[1])
    assert bits_equal(layer.W.grad.numpy(), want[2])  # type: ignore[union-attr]
    assert "precision='bf16'" in repr(layer)
    model = fd.nn.MLP(4, 8, 2, precision="bf16")
    assert [m.precision for m in model] == ["bf16", "bf16"]  # type: ignore[attr-defined]
    assert fd.nn.set_precision(model, None) is model
    assert [m.precision for m in model] == [None, None]  # type: ignore[attr-defined]


def test_a_captured_step_follows_a_change() -> None:
    _, X, W, b = arrays((6, 40, 3))
    model = fd.nn.Sequential(fd.nn.Affine(40, 3))
    model.load_state_dict({"0.W": W, "0.b": b})
    step = fd.capture(lambda x: model(x))
    for precision in (None, "bf16", None):
        fd.nn.set_precision(model, precision)
        for _ in range(2):
            want = ops.affine(X, W, b, precision=precision)
            assert bits_equal(np.asarray(step(fd.tensor(X))), want)


MAKERS: list[tuple[str, Any]] = [
    ("Affine", lambda p: fd.nn.Affine(2, 3, precision=p)),
    ("MLP", lambda p: fd.nn.MLP(2, 3, precision=p)),
    ("set_precision", lambda p: fd.nn.set_precision(fd.nn.MLP(2, 3), p)),
]


@pytest.mark.parametrize("name, make", MAKERS)
def test_unknown_precision(name: str, make: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: precision must be None or 'bf16', got 'fp8'$"):
        make("fp8")


@pytest.mark.parametrize("function", ["affine", "affine_backward"])
def test_float64_is_refused(function: str) -> None:
    X, W = np.ones((2, 3)), np.ones((3, 4))
    kernel = "affine_forward" if function == "affine" else function
    text = f"^{kernel}: precision must be full unless all arrays are float32, got bf16$"
    given = (X, W) if function == "affine" else (np.ones((2, 4)), X, W)
    with pytest.raises(ValueError, match=text):
        getattr(ops, function)(*given, precision="bf16")


def test_unknown_unit() -> None:
    with pytest.raises(ValueError, match=r"^use_bf16_unit: most must be fma, dot or amx, got 'x'$"):
        _core.use_bf16_unit("x")
