"""Initial values: variances as published, reproducible, in place."""

import fastdl
import numpy as np
import pytest
from fastdl import nn
from fastdl.nn import init

N, M = 300, 200  # fan_in, fan_out


@pytest.mark.parametrize(
    ("fill", "variance", "bound"),
    [
        (init.xavier_uniform_, 2 / (N + M), np.sqrt(6 / (N + M))),
        (init.xavier_normal_, 2 / (N + M), None),
        (init.kaiming_uniform_, 2 / N, np.sqrt(6 / N)),
        (init.kaiming_normal_, 2 / N, None),
        (init.he_uniform_, 2 / N, np.sqrt(6 / N)),
        (init.he_normal_, 2 / N, None),
        (lambda t: init.kaiming_normal_(t, mode="fan_out"), 2 / M, None),
        (lambda t: init.kaiming_normal_(t, nonlinearity="linear"), 1 / N, None),
        (lambda t: init.kaiming_uniform_(t, a=5**0.5), 1 / (3 * N), np.sqrt(1 / N)),
        (lambda t: init.xavier_normal_(t, gain=2.0), 8 / (N + M), None),
        (lambda t: init.uniform_(t, -2, 2), 4 / 3, 2),
        (lambda t: init.normal_(t, 0, 3.0), 9, None),
    ],
)
def test_variance_and_mean_are_as_published(fill, variance, bound):
    W = nn.Parameter(np.empty((N, M), np.float32))
    assert fill(W) is W
    w = W.numpy().astype(np.float64)
    n = w.size
    # Standard errors: mean sqrt(v/n), variance v sqrt(2/n) for normal numbers, less for uniform.
    assert abs(w.mean()) < 5 * np.sqrt(variance / n)
    assert abs(w.var() / variance - 1) < 5 * np.sqrt(2 / n)
    if bound is not None:
        assert 0.99 * bound < np.abs(w).max() <= bound * (1 + 1e-6)


def test_constants():
    t = np.empty((2, 3))
    assert (init.zeros_(t) == 0).all()
    assert (init.ones_(t) == 1).all()
    assert (init.constant_(t, 2.5) == 2.5).all()


def test_generator_decides():
    a, b = np.empty((3, 4)), np.empty((3, 4))
    init.he_normal_(a, generator=fastdl.Generator(4))
    init.he_normal_(b, generator=fastdl.Generator(4))
    np.testing.assert_array_equal(a, b)
    init.he_normal_(b, generator=fastdl.Generator(5))
    assert not np.array_equal(a, b)


def test_both_dtypes_start_from_the_same_values():
    fastdl.manual_seed(1)
    a = nn.Affine(5, 4, dtype=np.float64).W.numpy()
    fastdl.manual_seed(1)
    np.testing.assert_array_equal(nn.Affine(5, 4).W.numpy(), a.astype(np.float32))


def test_values_stay_in_the_arena():
    layer = nn.Affine(3, 2)
    opt = fastdl.optim.SGD(layer.parameters(), lr=1.0)
    init.constant_(layer.W, 3.0)
    layer.W.grad = np.ones((3, 2), "f4")
    opt.step()
    np.testing.assert_array_equal(layer.W.numpy(), 2)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"must be \(fan_in, fan_out\), got float64\(3\)"):
        init.xavier_uniform_(np.empty(3))
    with pytest.raises(ValueError, match="mode must be 'fan_in' or 'fan_out'"):
        init.kaiming_normal_(np.empty((3, 2)), mode="fan")
    with pytest.raises(ValueError, match="nonlinearity must be one of"):
        init.kaiming_normal_(np.empty((3, 2)), nonlinearity="gelu")


def test_zero_sizes_work():
    assert init.xavier_uniform_(np.empty((0, 0))).size == 0
    assert nn.Affine(0, 3).W.shape == (0, 3)
