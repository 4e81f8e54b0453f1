"""What reinforcement learning makes of rewards: discounted returns and advantages."""

from __future__ import annotations

import numpy as np

from fastdl import _core
from fastdl._array import Array, describe, empty, placed
from fastdl.errors import capture_error
from fastdl.ops._call import array_of
from fastdl.tape import constant, mode
from fastdl.tensor import ArrayLike, Tensor, wrap


def discounted_returns(
    rewards: ArrayLike,
    dones: ArrayLike,
    gamma: float,
    last_value: ArrayLike | float | None = None,
) -> ArrayLike:
    """Return ``G[t] = rewards[t] + gamma * G[t+1]``, where an episode's end cuts the chain.

    Parameters
    ----------
    rewards : (T,) or (T, N) float32 or float64
        Time first; N environments side by side.
    dones : like rewards, bool, uint8 or a number that is not 0
        Whether step t ended its episode: then ``G[t] = rewards[t]``.
    gamma : float, 0 <= gamma <= 1
    last_value : (N,) of rewards' dtype, or a number, optional
        ``G[T]``, the value of what follows the last step; 0 by default.

    Returns
    -------
    returns : like rewards; an ndarray if no argument is a Tensor, else a Tensor off the tape

    Raises
    ------
    ValueError
        If shapes do not fit, or ``gamma`` is out of range.
    TypeError
        If a dtype does not fit.

    Notes
    -----
    No gradient flows through returns.  What follows a done is not touched, so its NaN does not
    spread.  Source: Sutton & Barto, "Reinforcement learning", 2nd ed. 2018, eq. 3.9.
    """
    op = "discounted_returns"
    r, d = _steps(op, rewards), _flags(op, dones)
    last = None if last_value is None else _ends(op, "last_value", last_value, r)
    y = empty(r, r.shape, r.dtype)
    _core.discounted_returns(_as_2d(r), _as_2d(d), last, _as_2d(y), gamma)
    return wrap(y) if any(isinstance(x, Tensor) for x in (rewards, dones, last_value)) else y


def gae(
    rewards: ArrayLike,
    values: ArrayLike,
    dones: ArrayLike,
    last_values: ArrayLike | float,
    gamma: float,
    lam: float,
) -> tuple[ArrayLike, ArrayLike]:
    """Return generalized advantage estimates, and the returns they imply.

    ``delta[t] = rewards[t] + gamma * values[t+1] - values[t]``,
    ``advantages[t] = delta[t] + gamma * lam * advantages[t+1]``, ``returns = advantages + values``.

    Parameters
    ----------
    rewards, values : (T,) or (T, N) float32 or float64 of one dtype
        Time first; N environments side by side.
    dones : like rewards, bool, uint8 or a number that is not 0
        Whether step t ended its episode: then ``values[t+1]`` and ``advantages[t+1]`` count as 0.
        For an episode that was cut off by a time limit, add ``gamma`` times the value of its last
        state to its last reward.
    last_values : (N,) of rewards' dtype, or a number
        ``values[T]``, the value of what follows the last step.
    gamma : float, 0 <= gamma <= 1
    lam : float, 0 <= lam <= 1
        0 gives the one-step temporal difference, 1 the returns less the values.

    Returns
    -------
    advantages, returns : like rewards; ndarrays if no argument is a Tensor, else Tensors off the
        tape

    Raises
    ------
    ValueError
        If shapes do not fit, or ``gamma`` or ``lam`` is out of range.
    TypeError
        If a dtype does not fit.

    Notes
    -----
    No gradient flows through them.  Source: Schulman et al., "High-dimensional continuous control
    using generalized advantage estimation", 2016, eq. 11, 12 and 16.
    """
    r, v = _steps("gae", rewards), array_of("gae", "values", values)
    d, last = _flags("gae", dones), _ends("gae", "last_values", last_values, r)
    advantages, returns = empty(r, r.shape, r.dtype), empty(r, r.shape, r.dtype)
    _core.gae(
        _as_2d(r), _as_2d(v), _as_2d(d), last, _as_2d(advantages), _as_2d(returns), gamma, lam
    )
    if any(isinstance(x, Tensor) for x in (rewards, values, dones, last_values)):
        return wrap(advantages), wrap(returns)
    return advantages, returns


def _steps(op: str, rewards: ArrayLike) -> Array:
    r = array_of(op, "rewards", rewards)
    if r.ndim not in (1, 2):
        raise ValueError(f"{op}: rewards must be (T,) or (T, N), got {describe(r)}")
    return r


def _flags(op: str, dones: ArrayLike) -> Array:
    """Return ``dones`` as uint8; bool shares its memory."""
    d = array_of(op, "dones", dones)
    if d.dtype.kind in "if":
        if mode.recorder is not None:
            raise capture_error(f"compares dones of {d.dtype} with 0", "pass them as uint8")
        d = d != 0
    return d.view(np.uint8) if d.dtype == np.bool_ else d


def _ends(op: str, name: str, value: ArrayLike | float, rewards: Array) -> Array:
    """Return what follows the last step as (N,)."""
    if np.isscalar(value):
        return constant(placed(np.full(rewards.shape[1:] or 1, value, rewards.dtype), rewards))
    v = array_of(op, name, value)  # type: ignore[arg-type]  # not a number here
    return v.reshape(1) if v.ndim == 0 and rewards.ndim == 1 else v


def _as_2d(x: Array) -> Array:
    return x.reshape(x.size, 1) if x.ndim == 1 else x
