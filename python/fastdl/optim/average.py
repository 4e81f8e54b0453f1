"""Models with averaged weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from fastdl._array import assign, on_host
from fastdl.errors import capture_error
from fastdl.optim.optimizer import Optimizer
from fastdl.tape import mode

if TYPE_CHECKING:
    from fastdl.nn import Module

_M = TypeVar("_M", bound="Module")


def ema_model(model: _M, optimizer: Optimizer) -> _M:
    """Return a copy of ``model`` whose weights are the moving averages that ``optimizer`` keeps.

    Parameters
    ----------
    model : Module
    optimizer : Optimizer
        Made with ``ema_decay`` for parameters of ``model``.

    Returns
    -------
    averaged : Module
        Shares no memory with ``model``.  Parameters without an average (of a group without
        ``ema_decay``, or that took no step yet) and buffers, such as running statistics, are those
        of ``model``; so is the mode, training or evaluation.

    Raises
    ------
    ValueError
        If ``optimizer`` keeps no average of any parameter of ``model``.

    Notes
    -----
    Source: Polyak & Juditsky, "Acceleration of stochastic approximation by averaging", 1992; in the
    form of ``torch.optim.swa_utils.AveragedModel`` with ``get_ema_multi_avg_fn``.

    Examples
    --------
    >>> optimizer = fastdl.optim.Adam(model.parameters(), ema_decay=0.999)
    >>> ...
    >>> fastdl.optim.ema_model(model, optimizer).predict(X)
    """
    if mode.recorder is not None:
        raise capture_error("copies a model", "do it outside of the captured function")
    averages = optimizer.averages()
    own = list(model.parameters())
    if not any(id(p) in averages for p in own):
        raise ValueError(
            "ema_model: optimizer must keep an average of parameters of the model, got none; make "
            "it with ema_decay=..."
        )
    averaged = copy.deepcopy(model)
    for p, q in zip(own, averaged.parameters(), strict=True):
        if id(p) in averages:
            ema, values = on_host(averages[id(p)]), on_host(q._array)
            np.copyto(values, ema, where=ema == ema)  # NaN: not begun
            if values is not q._array:
                assign(q._array, values)
    return averaged
