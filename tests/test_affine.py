"""The ways in which affine forms its products cannot be told apart by their bits."""

from __future__ import annotations

from typing import Any

import fastdl
import numpy as np
import pytest
from fastdl import ops
from opcase import Array

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])


def arrays(dtype: Any, *shapes: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


@DTYPES
@pytest.mark.parametrize("columns", [1, 2, 5, 8, 12, 17, 24, 25])
def test_few_columns_have_the_bits_they_have_among_many(
    backend: str, dtype: Any, columns: int
) -> None:
    dY, X, W = arrays(dtype, (90, 100), (90, 300), (300, 100))
    b = W[0].copy()
    few = np.ascontiguousarray
    Y = ops.affine(X, W, b, "relu")
    thin = ops.affine(X, few(W[:, :columns]), b[:columns], "relu")
    np.testing.assert_array_equal(thin, Y[:, :columns])
    dX, dW, db = ops.affine_backward(dY, X, W)
    _, dW_thin, db_thin = ops.affine_backward(few(dY[:, :columns]), X, few(W[:, :columns]))
    np.testing.assert_array_equal(dW_thin, dW[:, :columns])
    np.testing.assert_array_equal(db_thin, db[:columns])
    dX_thin, _, _ = ops.affine_backward(dY, few(X[:, :columns]), few(W[:columns]))
    np.testing.assert_array_equal(dX_thin, dX[:, :columns])


@DTYPES
def test_a_row_has_the_bits_it_has_among_many(backend: str, dtype: Any) -> None:
    X, W, b = arrays(dtype, (5, 700), (700, 310), (310,))
    Y = ops.affine(X, W, b, "tanh")
    np.testing.assert_array_equal(ops.affine(X[3:4], W, b, "tanh"), Y[3:4])


@DTYPES
@pytest.mark.parametrize("shape", [(700, 1, 90), (700, 40, 3), (300, 40, 90), (5, 0, 7)])
def test_the_bias_gradient_alone_has_the_bits_it_has_beside_dW(
    backend: str, dtype: Any, shape: tuple[int, int, int]
) -> None:
    from fastdl import _core

    B, n, m = shape
    dY, X, W = arrays(dtype, (B, m), (B, n), (n, m))
    _, _, db = ops.affine_backward(dY, X, W)
    alone = np.empty(m, dtype)
    _core.affine_backward(dY, X, W, None, None, None, alone)
    np.testing.assert_array_equal(alone, db)


def test_large_outputs_start_at_a_cache_line() -> None:
    X, W, b = arrays(np.float32, (600, 700), (700, 700), (700,))
    Y = ops.affine(X, W, b)
    outputs = [Y, *ops.affine_backward(Y, X, W)[:2]]
    x = fastdl.tensor(X, requires_grad=True)
    ops.affine(x, W, b).sum().backward()
    for a in [*outputs, x.grad.numpy()]:
        assert a.ctypes.data % 64 == 0 and a.flags.carray and a.shape == (len(a), 700)
