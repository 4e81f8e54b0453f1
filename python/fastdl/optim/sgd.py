"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastdl._array import assign
from fastdl.optim.group import ParamGroup
from fastdl.optim.optimizer import Optimizer
from fastdl.optim.options import COMMON, check_at_least, check_clip_and_ema, check_flags
from fastdl.tensor import Tensor


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as torch's.

    Parameters
    ----------
    params : iterable of Tensor, or of dicts with "params" and options
    lr : float >= 0
    momentum : float >= 0
    dampening : float
    weight_decay : float >= 0
        Added to the gradient, times theta.
    nesterov : bool
        Needs a momentum and no dampening.
    maximize : bool
    clip_norm : float >= 0, or None
        As for `Adam`.
    ema_decay : float in [0, 1), or None
        As for `Adam`.

    Raises
    ------
    ValueError
        If a number is out of range.

    Notes
    -----
    ``buf = momentum buf + (1 - dampening) g`` (``buf = g`` at first), ``theta -= lr buf``, or with
    nesterov ``theta -= lr (g + momentum buf)``.  Source: Sutskever et al., "On the importance of
    initialization and momentum in deep learning", 2013.
    """

    hyper_names = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize", *COMMON)
    state_names = ("momentum_buffer", "ema")
    kernel_name = "sgd_step"

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        clip_norm: float | None = None,
        ema_decay: float | None = None,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
                "clip_norm": clip_norm,
                "ema_decay": ema_decay,
            },
        )

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise unless numbers are in range."""
        check_at_least("SGD", options, 0, "lr", "momentum", "weight_decay")
        check_at_least("SGD", options, float("-inf"), "dampening")
        check_flags("SGD", options, "nesterov", "maximize")
        check_clip_and_ema("SGD", options)
        if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
            raise ValueError(
                "SGD: nesterov must go with a momentum > 0 and dampening 0, got "
                f"{options['momentum']} and {options['dampening']}"
            )

    def state_in_use(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the buffer's name if there is a momentum, the average's if one is kept."""
        used = options["momentum"] != 0, options["ema_decay"] != 0
        return tuple(name for name, use in zip(self.state_names, used, strict=True) if use)

    def options_changed(self, group: ParamGroup, before: Mapping[str, Any]) -> None:
        """Switch state on or off; a new momentum buffer begins with the next gradient."""
        without = [run for run in self._runs if "momentum_buffer" not in run.state]
        super().options_changed(group, before)
        for run in without:
            if "momentum_buffer" in run.state:
                assign(run.steps, 0)
