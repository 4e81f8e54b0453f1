"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fastdl._array import Array
from fastdl.optim.group import ParamGroup
from fastdl.optim.optimizer import Optimizer
from fastdl.optim.options import check_at_least, check_flags
from fastdl.optim.run import Run
from fastdl.tape import layout_changed
from fastdl.tensor import Tensor


class Adam(Optimizer):
    """Adam, as torch's.

    Parameters
    ----------
    params : iterable of Tensor, or of dicts with "params" and options
    lr : float >= 0
    betas : two floats in [0, 1)
        Decay of the first and second moment.
    eps : float >= 0
    weight_decay : float >= 0
        Added to the gradient, times theta.
    amsgrad : bool
        Divide by the largest second moment so far.
    maximize : bool

    Raises
    ------
    ValueError
        If a number is out of range.

    Notes
    -----
    ``m1 = beta1 m1 + (1 - beta1) g``, ``m2 = beta2 m2 + (1 - beta2) g^2``, ``theta -= lr / (1 -
    beta1^t) m1 / (sqrt(m2 / (1 - beta2^t)) + eps)``, t counted for each parameter.  Source:
    Kingma & Ba, "Adam", 2015; amsgrad: Reddi et al., "On the convergence of Adam and beyond", 2018.
    """

    hyper_names = ("lr", "beta1", "beta2", "eps", "weight_decay", "maximize")
    state_names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    kernel_name = "adam_step"
    kernel_options = (False,)

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
            },
        )

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise unless numbers are in range."""
        check_at_least(self._name, options, 0, "lr", "eps", "weight_decay")
        check_flags(self._name, options, "amsgrad", "maximize")
        betas = options["betas"]
        if not (isinstance(betas, tuple | list) and len(betas) == 2):
            raise TypeError(f"{self._name}: betas must be two numbers, got {betas!r}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"{self._name}: betas must be 0 <= beta < 1, got {betas}")

    def state_in_use(self, group: ParamGroup) -> tuple[str, ...]:
        """Return the moments' names."""
        return self.state_names if group["amsgrad"] else self.state_names[:2]

    def options_changed(self, group: ParamGroup, before: Mapping[str, Any]) -> None:
        """Switch amsgrad on or off."""
        if group["amsgrad"] == before["amsgrad"]:
            return
        for run in self._runs:
            if run.group is group:
                for name in self.state_in_use(group):
                    run.add_state(name)
                run.forget_calls()
        layout_changed()

    def _export(self, run: Run, i: int) -> dict[str, Array]:
        return {"step": np.array(run.steps[i]), **super()._export(run, i)}


class AdamW(Adam):
    """Adam with decoupled weight decay, as torch's: first ``theta -= lr weight_decay theta``.

    Parameters are those of `Adam`, with another default for ``weight_decay``.  Source: Loshchilov &
    Hutter, "Decoupled weight decay regularization", 2019.
    """

    kernel_options = (True,)

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
