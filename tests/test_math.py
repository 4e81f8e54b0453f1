"""Vector functions to the last digit, where the bound of the harness would admit more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastdl import _core
from opcase import Array


def ulps(got: Array, want: Array) -> Array:
    """|got - want| in units of the last place of `want`, which is in long double."""
    limits = np.finfo(got.dtype)
    unit = np.ldexp(np.longdouble(1), np.frexp(want)[1] - limits.nmant - 1)
    return np.asarray(np.abs(got - want) / np.maximum(unit, limits.smallest_subnormal))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.emulated
def test_tanh_is_within_2_ulp_and_odd(backend: str, dtype: Any) -> None:
    if np.finfo(np.longdouble).eps >= np.finfo(dtype).eps:
        pytest.skip("long double is no wider than double here")
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [
            rng.uniform(0, 20, 100_000),
            rng.uniform(0, 1, 200_000),
            10 ** rng.uniform(-30, 0, 20_000),
            0.55 + np.arange(-500, 500) * 1e-7,  # where the two formulas meet
            np.geomspace(np.finfo(dtype).smallest_subnormal, 1e-30, 100),
        ]
    ).astype(dtype)
    y, minus = np.empty_like(x), np.empty_like(x)
    _core.tanh_forward(x, y)
    _core.tanh_forward(-x, minus)
    assert np.array_equal(minus, -y)
    error = ulps(y, np.tanh(x.astype(np.longdouble)))
    assert error.max() <= 2, (error.max(), x[error.argmax()])
    assert np.all(np.diff(y[np.argsort(x)]) >= -np.spacing(y.max())), "not monotonic within an ulp"
    ends = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e30, -50], dtype)
    got = np.empty_like(ends)
    _core.tanh_forward(ends, got)
    np.testing.assert_array_equal(got, np.tanh(ends))
    assert np.array_equal(np.signbit(got[:4]), [False, True, False, True])
