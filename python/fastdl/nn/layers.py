"""Layers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fastdl import ops
from fastdl._array import FLOATS, Array, as_dtype
from fastdl.nn import init
from fastdl.nn.module import Module
from fastdl.nn.parameter import Parameter
from fastdl.random import Generator
from fastdl.tensor import ArrayLike

_M = TypeVar("_M", bound=Module)


def _checked(dtype: npt.DTypeLike) -> np.dtype[Any]:
    found = as_dtype(dtype)
    if found not in FLOATS:
        raise TypeError(
            f"dtype must be float32 or float64, got {found}; .to('bfloat16') converts a model"
        )
    return found


class Affine(Module):
    """Y = act(X W + b); torch's Linear with W transposed.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
    activation : None, "relu" or "tanh"
        Computed in the same pass.
    dtype : float32 or float64
    precision : None or "bf16"
        What factors are rounded to in products, forward and backward; see `fastdl.ops.affine`.
        For a whole model: `set_precision`.

    Attributes
    ----------
    W : Parameter (in_features, out_features)
    b : Parameter (out_features,), or None

    Notes
    -----
    Both start uniform in ±1/sqrt(in_features), as torch's Linear does, so that learning curves
    compare; `fastdl.nn.init` has the others.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: str | None = None,
        dtype: npt.DTypeLike = np.float32,
        precision: str | None = None,
    ) -> None:
        check_activation("Affine", activation)
        check_precision("Affine", precision)
        _check_sizes("Affine", in_features=in_features, out_features=out_features)
        self.in_features = in_features
        self.out_features = out_features
        self.activation = activation
        self.precision = precision
        dtype = _checked(dtype)
        self.W = Parameter(np.empty((in_features, out_features), dtype))
        self.b = Parameter(np.empty(out_features, dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        bound = 1 / np.sqrt(max(self.in_features, 1))
        init.uniform_(self.W, -bound, bound)
        if self.b is not None:
            init.uniform_(self.b, -bound, bound)

    def forward(self, X: ArrayLike) -> ArrayLike:
        """(..., in_features) -> (..., out_features)."""
        return ops.affine(X, self.W, self.b, self.activation, precision=self.precision)

    def extra_repr(self) -> str:
        """Return the sizes and options."""
        act = f", activation={self.activation!r}" if self.activation else ""
        precision = f", precision={self.precision!r}" if self.precision else ""
        return f"{self.in_features}, {self.out_features}, bias={self.b is not None}{act}{precision}"


Linear = Affine


class ReLU(Module):
    """Y = max(X, 0)."""

    def forward(self, X: ArrayLike) -> ArrayLike:
        """Any shape, kept."""
        return ops.relu(X)


class Tanh(Module):
    """Y = tanh(X)."""

    def forward(self, X: ArrayLike) -> ArrayLike:
        """Any shape, kept."""
        return ops.tanh(X)


#: The activations that `Affine` computes in the same pass, and their layers.
ACTIVATIONS: dict[str, type[Module]] = {"relu": ReLU, "tanh": Tanh}


def check_activation(layer: str, activation: str | None) -> None:
    """Raise ValueError unless ``activation`` is None or a known name."""
    if activation is not None and activation not in ACTIVATIONS:
        known = ", ".join(map(repr, ACTIVATIONS))
        raise ValueError(f"{layer}: activation must be None, {known}, got {activation!r}")


def check_precision(where: str, precision: str | None) -> None:
    """Raise ValueError unless ``precision`` is known."""
    if precision not in (None, "bf16"):
        raise ValueError(f"{where}: precision must be None or 'bf16', got {precision!r}")


def set_precision(model: _M, precision: str | None) -> _M:
    """Set the ``precision`` of every `Affine` in ``model``; return the model.

    Parameters
    ----------
    model : Module
    precision : None or "bf16"
        What factors are rounded to in matrix products.  Captured steps are recorded anew.

    Raises
    ------
    ValueError
        If ``precision`` is unknown.
    """
    check_precision("set_precision", precision)
    for module in model.modules():
        if isinstance(module, Affine):
            module.precision = precision
    return model


class Dropout(Module):
    """In training, zero every element with probability ``p`` and scale the others by 1/(1-p).

    Parameters
    ----------
    p : float, 0 <= p <= 1
    generator : Generator, optional
        By default the one of `fastdl.manual_seed`.
    """

    def __init__(self, p: float = 0.5, *, generator: Generator | None = None) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p must be 0 <= p <= 1, got {p}")
        self.p = p
        self.generator = generator

    def forward(self, X: ArrayLike) -> ArrayLike:
        """Any shape, kept."""
        return ops.dropout(X, self.p, self.training, generator=self.generator)

    def extra_repr(self) -> str:
        """Return the probability."""
        return f"p={self.p}"


class BatchNorm1d(Module):
    """Normalise every channel over the batch, with torch's arguments and names.

    Parameters
    ----------
    num_features : int
    eps : float
    momentum : float in [0, 1], or None for the plain average of all batches
    affine : bool
        Learn a scale and a shift.
    track_running_stats : bool
        If False, batch statistics are used in evaluation mode too.
    activation : None or "relu"
        Computed in the same pass.
    dtype : float32 or float64
        float32 also goes with an X in bfloat16.

    Attributes
    ----------
    weight, bias : Parameter (num_features,), or None
        gamma and beta.
    running_mean, running_var : ndarray (num_features,), or None
    num_batches_tracked : int64 ndarray, 0-d, or None
    """

    _in_float32 = True
    running_mean: Array | None
    running_var: Array | None
    num_batches_tracked: Array | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: npt.DTypeLike = np.float32,
        *,
        activation: str | None = None,
    ) -> None:
        if activation not in (None, "relu"):
            raise ValueError(f"BatchNorm1d: activation must be None or 'relu', got {activation!r}")
        _check_sizes("BatchNorm1d", num_features=num_features)
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.activation = activation
        dtype = _checked(dtype)
        self.weight = Parameter(np.ones(num_features, dtype)) if affine else None
        self.bias = Parameter(np.zeros(num_features, dtype)) if affine else None
        track = track_running_stats
        self.register_buffer("running_mean", np.zeros(num_features, dtype) if track else None)
        self.register_buffer("running_var", np.ones(num_features, dtype) if track else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if track else None)

    def forward(self, X: ArrayLike) -> ArrayLike:
        """(N, C) or (N, C, L), kept."""
        return ops.batch_norm(
            X,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            self.momentum,
            self.eps,
            num_batches_tracked=self.num_batches_tracked,
            activation=self.activation,
        )

    def extra_repr(self) -> str:
        """Return the size and options."""
        act = f", activation={self.activation!r}" if self.activation else ""
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}{act}"


class LayerNorm(Module):
    """Normalise the last axes of every sample over themselves, with torch's arguments and names.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        The last axes of the input.
    eps : float
    elementwise_affine : bool
        Learn a scale and, if ``bias``, a shift of every element.
    bias : bool
    dtype : float32 or float64
        float32 also goes with an X in bfloat16.

    Attributes
    ----------
    weight, bias : Parameter (*normalized_shape), or None
        gamma and beta.
    """

    _in_float32 = True

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        axes = normalized_shape if isinstance(normalized_shape, Sequence) else (normalized_shape,)
        if not axes:
            raise ValueError("LayerNorm: normalized_shape must have an axis, got ()")
        for n in axes:
            _check_sizes("LayerNorm", normalized_shape=n)
        self.normalized_shape = tuple(axes)
        self.eps = eps
        shift = elementwise_affine and bias
        dtype = _checked(dtype)
        self.weight = Parameter(np.ones(axes, dtype)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(axes, dtype)) if shift else None

    def forward(self, X: ArrayLike) -> ArrayLike:
        """(..., *normalized_shape), kept."""
        return ops.layer_norm(X, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the shape and options."""
        learned = f"elementwise_affine={self.weight is not None}"
        shift = "" if self.bias is not None or self.weight is None else ", bias=False"
        return f"{self.normalized_shape}, eps={self.eps}, {learned}{shift}"


class Flatten(Module):
    """Join the dimensions ``start_dim`` to ``end_dim``.

    Parameters
    ----------
    start_dim, end_dim : int
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, X: ArrayLike) -> ArrayLike:
        """(B, d1, d2, ...) -> (B, d1 d2 ...)."""
        rank = X.ndim
        first, last = self.start_dim % rank, self.end_dim % rank
        if first > last:
            raise ValueError(
                f"Flatten: start_dim must not be after end_dim, got {first} and {last} of {rank}"
            )
        joined = prod(X.shape[first : last + 1])
        return ops.reshape(X, (*X.shape[:first], joined, *X.shape[last + 1 :]))

    def extra_repr(self) -> str:
        """Return the dimensions."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


def _check_sizes(layer: str, **sizes: Any) -> None:
    for name, value in sizes.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise TypeError(f"{layer}: {name} must be an int, got {value!r}")
        if value < 0:
            raise ValueError(f"{layer}: {name} must be >= 0, got {value}")
