"""The multi-layer perceptron in one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fastdl.nn.containers import Sequential
from fastdl.nn.layers import (
    ACTIVATIONS,
    Affine,
    BatchNorm1d,
    Dropout,
    check_activation,
    check_precision,
    set_precision,
)
from fastdl.nn.module import Module


class MLP(Sequential):
    """Affine layers with an activation after all but the last.

    Parameters
    ----------
    *sizes : int or sequence of int
        Number of inputs, of each hidden layer, and of outputs: ``MLP(64, 128, 10)``,
        ``MLP([64, 128, 10])`` and ``MLP(64, [128], 10)`` are the same.
    activation : None, "relu" or "tanh"
    norm : None or "batch"
        BatchNorm1d, with the activation, after an affine layer (then without bias).
    dropout : float
        Probability of the Dropout after each activation; 0 for none.
    dtype : float32 or float64
    precision : None or "bf16"
        As of `Affine`.

    Raises
    ------
    ValueError
        If there are less than two sizes, or an option is unknown.
    """

    def __init__(
        self,
        *sizes: int | Sequence[int],
        activation: str | None = "relu",
        norm: str | None = None,
        dropout: float = 0.0,
        dtype: npt.DTypeLike = np.float32,
        precision: str | None = None,
    ) -> None:
        flat = [s for part in sizes for s in (part if isinstance(part, Sequence) else (part,))]
        if len(flat) < 2:
            raise ValueError(f"MLP: sizes must be inputs, hidden ..., outputs, got {flat}")
        check_activation("MLP", activation)
        check_precision("MLP", precision)
        if norm not in (None, "batch"):
            raise ValueError(f"MLP: norm must be None or 'batch', got {norm!r}")
        layers: list[Module] = []
        for n, m in pairwise(flat[:-1]):
            layers += _hidden(n, m, activation, norm, dropout, dtype)
        super().__init__(*layers, Affine(flat[-2], flat[-1], dtype=dtype))
        self.sizes = tuple(flat)
        set_precision(self, precision)


def _hidden(
    n: int, m: int, activation: str | None, norm: str | None, dropout: float, dtype: npt.DTypeLike
) -> Iterator[Module]:
    if norm is None:
        yield Affine(n, m, activation=activation, dtype=dtype)
    else:
        yield Affine(n, m, bias=False, dtype=dtype)
        yield BatchNorm1d(m, dtype=dtype, activation="relu" if activation == "relu" else None)
        if activation not in (None, "relu"):
            yield ACTIVATIONS[activation]()
    if dropout:
        yield Dropout(dropout)
