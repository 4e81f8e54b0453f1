"""discounted_returns and gae: definitions, layouts of episodes, kinds of arguments, refusals."""

import fastdl
import numpy as np
import pytest
from fastdl import ops


def episodes(T=50, N=3, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    rewards, values = rng.standard_normal((2, T, N)).astype(dtype)
    return rewards, values, rng.random((T, N)) < 0.1, rng.standard_normal(N).astype(dtype)


def test_returns_are_discounted_sums_up_to_the_end_of_the_episode():
    r, _, done, last = episodes()
    G = ops.discounted_returns(r, done, 0.9, last)
    for t, n in np.ndindex(r.shape):
        ends = np.flatnonzero(done[t:, n])
        stop = t + ends[0] + 1 if len(ends) else len(r)
        want = sum(0.9 ** (k - t) * r[k, n] for k in range(t, stop))
        if not len(ends):
            want += 0.9 ** (len(r) - t) * last[n]
        assert G[t, n] == pytest.approx(want, rel=1e-12, abs=1e-12)


def test_gae_is_the_sum_of_temporal_differences():
    r, V, done, last = episodes()
    A, R = ops.gae(r, V, done, last, 0.9, 0.8)
    after = np.concatenate([V[1:], last[None]])
    delta = r + 0.9 * np.where(done, 0, after) - V
    for t, n in np.ndindex(r.shape):
        ends = np.flatnonzero(done[t:, n])
        stop = t + ends[0] + 1 if len(ends) else len(r)
        want = sum((0.9 * 0.8) ** (k - t) * delta[k, n] for k in range(t, stop))
        assert A[t, n] == pytest.approx(want, rel=1e-12, abs=1e-12)
    assert np.array_equal(R, A + V)


def test_lam_of_1_gives_the_returns_and_of_0_one_step():
    r, V, done, last = episodes()
    np.testing.assert_allclose(
        ops.gae(r, V, done, last, 0.9, 1.0)[1], ops.discounted_returns(r, done, 0.9, last)
    )
    after = np.concatenate([V[1:], last[None]])
    A, _ = ops.gae(r, V, done, last, 0.9, 0.0)
    np.testing.assert_allclose(A, r + 0.9 * np.where(done, 0, after) - V)


def test_one_environment_may_leave_out_its_axis():
    r, V, done, last = episodes(N=1)
    flat = r[:, 0], V[:, 0], done[:, 0]
    G = ops.discounted_returns(flat[0], flat[2], 0.9, last[0].item())
    assert np.array_equal(G, ops.discounted_returns(r, done, 0.9, last)[:, 0])
    for value in (last, last[0].item(), np.array(last[0])):
        A, R = ops.gae(*flat, value, 0.9, 0.8)
        assert A.shape == R.shape == (50,)
        assert np.array_equal(A, ops.gae(r, V, done, last, 0.9, 0.8)[0][:, 0])


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int32, np.int64, np.float32, np.float64])
def test_dones_of_any_kind(dtype):
    r, _, done, last = episodes()
    want = ops.discounted_returns(r, done, 0.9, last)
    assert np.array_equal(ops.discounted_returns(r, done.astype(dtype), 0.9, last), want)


def test_what_follows_an_end_does_not_matter():
    r, V, done, last = episodes(N=1)
    done[20] = True
    V2, r2 = V.copy(), r.copy()
    V2[21], r2[21], last[...] = np.nan, np.inf, np.nan
    A, A2 = (ops.gae(x, v, done, last, 0.9, 0.8)[0] for x, v in [(r, V), (r2, V2)])
    assert np.isfinite(A2[:21]).all() and np.array_equal(A[:21], A2[:21])


def test_numbers_and_no_last_value():
    r, _, done, _ = episodes()
    zero, two = np.zeros(3), np.full(3, 2.0)
    G = ops.discounted_returns(r, done, 0.9)
    assert np.array_equal(G, ops.discounted_returns(r, done, 0.9, zero))
    G = ops.discounted_returns(r, done, 0.9, 2.0)
    assert np.array_equal(G, ops.discounted_returns(r, done, 0.9, two))


def test_tensors_give_tensors_off_the_tape():
    r, V, done, last = episodes()
    V = fastdl.Tensor(V, requires_grad=True)
    A, R = ops.gae(fastdl.Tensor(r), V, done, last, 0.9, 0.8)
    assert isinstance(A, fastdl.Tensor) and not A.requires_grad and not R.requires_grad
    assert isinstance(ops.discounted_returns(r, done, 0.9, fastdl.Tensor(last)), fastdl.Tensor)


def test_a_captured_estimate():
    @fastdl.capture
    def estimate(r, V, done, last):
        return ops.gae(r, V, done, last, 0.9, 0.8)

    for seed in range(3):
        r, V, done, last = episodes(seed=seed)
        A, _ = estimate(r, V, done.view(np.uint8), last)
        assert np.array_equal(A.numpy(), ops.gae(r, V, done, last, 0.9, 0.8)[0])
    with pytest.raises(fastdl.CaptureError, match=r"dones of float64.*pass them as uint8"):
        estimate(r, V, done.astype(float), last)


def test_refusals():
    r, V, done, last = episodes()
    with pytest.raises(ValueError, match=r"^gae: rewards must be \(T,\) or \(T, N\), got"):
        ops.gae(r[None], V[None], done[None], last, 0.9, 0.8)
    with pytest.raises(ValueError, match=r"^gae: dones must be"):
        ops.gae(r, V, done[1:], last, 0.9, 0.8)
    with pytest.raises(ValueError, match=r"^gae: last_values must be .*N = 3"):
        ops.gae(r, V, done, last[:2], 0.9, 0.8)
    with pytest.raises(TypeError, match=r"^gae: values must be float64.*got float32"):
        ops.gae(r, V.astype(np.float32), done, last, 0.9, 0.8)
    with pytest.raises(TypeError, match=r"^gae: last_values must be an ndarray or a Tensor, got l"):
        ops.gae(r, V, done, [0, 0, 0], 0.9, 0.8)
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\], got 1.5"):
        ops.discounted_returns(r, done, 1.5)
