"""Initial values, in place, with torch's names; weights are (fan_in, fan_out) as W is.

Every function takes ``generator``, by default the one of `fastdl.manual_seed`, and returns its
tensor.  Numbers are drawn in float64 and rounded, so both dtypes start from the same values.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from fastdl import random
from fastdl._array import Array, assign, describe
from fastdl.errors import capture_error
from fastdl.random import Generator
from fastdl.tape import mode, parameters_written
from fastdl.tensor import ArrayLike, Tensor


def uniform_(
    t: ArrayLike, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None
) -> ArrayLike:
    """Fill ``t`` with numbers uniform in [a, b)."""
    return _fill(t, _rng(generator).uniform(a, b, t.shape))


def normal_(
    t: ArrayLike, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None
) -> ArrayLike:
    """Fill ``t`` with normal numbers."""
    return _fill(t, _rng(generator).normal(mean, std, t.shape))


def constant_(t: ArrayLike, value: float) -> ArrayLike:
    """Fill ``t`` with one value."""
    return _fill(t, np.asarray(value))


def zeros_(t: ArrayLike) -> ArrayLike:
    """Fill ``t`` with zeros."""
    return constant_(t, 0.0)


def ones_(t: ArrayLike) -> ArrayLike:
    """Fill ``t`` with ones."""
    return constant_(t, 1.0)


def xavier_uniform_(
    t: ArrayLike, gain: float = 1.0, *, generator: Generator | None = None
) -> ArrayLike:
    """Uniform with variance ``gain**2 * 2 / (fan_in + fan_out)``.

    Source: Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", 2010, eq. 16.
    """
    bound = gain * sqrt(6 / max(sum(_fans("xavier_uniform_", t)), 1))
    return uniform_(t, -bound, bound, generator=generator)


def xavier_normal_(
    t: ArrayLike, gain: float = 1.0, *, generator: Generator | None = None
) -> ArrayLike:
    """Normal with variance ``gain**2 * 2 / (fan_in + fan_out)``; source as `xavier_uniform_`."""
    std = gain * sqrt(2 / max(sum(_fans("xavier_normal_", t)), 1))
    return normal_(t, 0.0, std, generator=generator)


def kaiming_uniform_(
    t: ArrayLike,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    generator: Generator | None = None,
) -> ArrayLike:
    """Uniform with variance ``gain**2 / fan``.

    Parameters
    ----------
    t : (fan_in, fan_out)
    a : float
        Negative slope of "leaky_relu".
    mode : "fan_in" or "fan_out"
        Which variance to keep: that of the values forward or of the gradients backward.
    nonlinearity : "leaky_relu", "relu" or "linear"

    Source: He et al., "Delving deep into rectifiers", 2015, eq. 10 and 14.
    """
    bound = sqrt(3) * _kaiming_std("kaiming_uniform_", t, a, mode, nonlinearity)
    return uniform_(t, -bound, bound, generator=generator)


def kaiming_normal_(
    t: ArrayLike,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    generator: Generator | None = None,
) -> ArrayLike:
    """Normal with variance ``gain**2 / fan``; arguments and source as `kaiming_uniform_`."""
    std = _kaiming_std("kaiming_normal_", t, a, mode, nonlinearity)
    return normal_(t, 0.0, std, generator=generator)


he_uniform_ = kaiming_uniform_
he_normal_ = kaiming_normal_


def _kaiming_std(op: str, t: ArrayLike, a: float, fan: str, nonlinearity: str) -> float:
    gains = {"linear": 1.0, "relu": sqrt(2), "leaky_relu": sqrt(2 / (1 + a * a))}
    if nonlinearity not in gains:
        raise ValueError(f"{op}: nonlinearity must be one of {tuple(gains)}, got {nonlinearity!r}")
    if fan not in ("fan_in", "fan_out"):
        raise ValueError(f"{op}: mode must be 'fan_in' or 'fan_out', got {fan!r}")
    fan_in, fan_out = _fans(op, t)
    return gains[nonlinearity] / sqrt(max(fan_in if fan == "fan_in" else fan_out, 1))


def _fans(op: str, t: ArrayLike) -> tuple[int, int]:
    if t.ndim != 2:
        raise ValueError(f"{op}: tensor must be (fan_in, fan_out), got {describe(_values(t))}")
    return t.shape[0], t.shape[1]


def _rng(generator: Generator | None) -> np.random.Generator:
    return (random.default_generator if generator is None else generator).numpy()


def _values(t: ArrayLike) -> Array:
    return t._array if isinstance(t, Tensor) else t


def _fill(t: ArrayLike, values: Array) -> ArrayLike:
    if mode.recorder is not None:
        raise capture_error("sets initial values", "do it outside of the captured function")
    assign(_values(t), values)
    parameters_written()
    return t
