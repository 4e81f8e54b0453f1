"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fastdl._array import Array, on_host
from fastdl.optim.optimizer import Optimizer
from fastdl.optim.options import COMMON, check_at_least, check_clip_and_ema, check_flags
from fastdl.optim.run import Run
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
    clip_norm : float >= 0, or None
        Scale the gradients of a group so that their common norm is at most this, as
        ``torch.nn.utils.clip_grad_norm_``; ``.grad`` stays as it is.  0 and None: off.
    ema_decay : float in [0, 1), or None
        Keep a moving average of the parameters, which `ema_model` puts into a copy of the model:
        ``ema = d ema + (1 - d) theta`` after every step, theta after the first.  0 and None: off.

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

    hyper_names = ("lr", "beta1", "beta2", "eps", "weight_decay", "maximize", *COMMON)
    state_names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "ema")
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
        clip_norm: float | None = None,
        ema_decay: float | None = None,
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
                "clip_norm": clip_norm,
                "ema_decay": ema_decay,
            },
        )

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise unless numbers are in range."""
        check_at_least(self._name, options, 0, "lr", "eps", "weight_decay")
        check_flags(self._name, options, "amsgrad", "maximize")
        check_clip_and_ema(self._name, options)
        betas = options["betas"]
        if not (isinstance(betas, tuple | list) and len(betas) == 2):
            raise TypeError(f"{self._name}: betas must be two numbers, got {betas!r}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"{self._name}: betas must be 0 <= beta < 1, got {betas}")

    def state_in_use(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the moments' names, and that of the average if one is kept."""
        unused = {"max_exp_avg_sq": not options["amsgrad"], "ema": options["ema_decay"] == 0}
        return tuple(name for name in self.state_names if not unused.get(name))

    def _export(self, run: Run, i: int) -> dict[str, Array]:
        return {"step": np.array(on_host(run.steps)[i]), **super()._export(run, i)}


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
        clip_norm: float | None = None,
        ema_decay: float | None = None,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad,
            maximize=maximize, clip_norm=clip_norm, ema_decay=ema_decay,
        )  # fmt: skip
