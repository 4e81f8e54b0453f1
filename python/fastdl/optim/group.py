"""Parameter groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdl._array import Array, assign, to_device
from fastdl.errors import capture_error
from fastdl.tape import mode
from fastdl.tensor import Tensor

if TYPE_CHECKING:
    from fastdl.optim.optimizer import Optimizer


class ParamGroup(MutableMapping[str, Any]):
    """Parameters with common options; torch's ``param_groups`` entry.

    Numbers live in the float64 array ``hyper`` that the kernels read at every step, so setting
    ``group["lr"]`` also steers captured steps.
    """

    def __init__(self, owner: Optimizer, params: list[Tensor], options: Mapping[str, Any]) -> None:
        self.owner = owner
        self.params = params
        self.device = params[0].device if params else "cpu"
        self.hyper = np.zeros(len(owner.hyper_names))
        self.kernel_hyper: Array = to_device(self.hyper, self.device)  # the same array on the CPU
        # Of all gradients of the group, at the last step that clipped.
        self.squares: Array = to_device(np.zeros(()), self.device)
        self._sent = np.full(len(self.hyper), np.nan)  # what the device has
        self._rest: dict[str, Any] = {}
        self._store(options)

    def update_device(self) -> None:
        """Bring what the kernels read on a device up to date."""
        if self.kernel_hyper is not self.hyper and not np.array_equal(self.hyper, self._sent):
            self._sent = self.hyper.copy()
            assign(self.kernel_hyper, self._sent)

    def _store(self, options: Mapping[str, Any]) -> None:
        for name, value in options.items():
            if name in self.owner.hyper_names:
                self.hyper[self.owner.hyper_names.index(name)] = 0.0 if value is None else value
            elif name == "betas":
                first = self.owner.hyper_names.index("beta1")
                self.hyper[first : first + 2] = value
            else:
                self._rest[name] = value

    def __getitem__(self, name: str) -> Any:
        names = self.owner.hyper_names
        if name == "params":
            return self.params
        if name == "betas" and "beta1" in names:
            return self["beta1"], self["beta2"]
        if name in names:
            value = self.hyper[names.index(name)].item()
            return bool(value) if name in ("nesterov", "maximize") else value
        return self._rest[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if mode.recorder is not None:
            raise capture_error(f"sets group[{name!r}]", "set it outside of the captured function")
        if name == "params":
            raise ValueError(
                "param_groups: params must stay as they are; use add_param_group or a new optimizer"
            )
        before = dict(self.options())
        self.owner.check({**before, name: value})
        self._store({name: value})
        self.owner.options_changed(self, before)

    def __delitem__(self, name: str) -> None:
        del self._rest[name]

    def __iter__(self) -> Iterator[str]:
        return iter(("params", *self.options()))

    def __len__(self) -> int:
        return 1 + len(self.options())

    def options(self) -> dict[str, Any]:
        """Return everything but the parameters, under torch's names."""
        names = [n for n in self.owner.hyper_names if n not in ("beta1", "beta2")]
        if "beta1" in self.owner.hyper_names:
            names.insert(1, "betas")
        return {name: self[name] for name in names} | self._rest

    def __repr__(self) -> str:
        return f"ParamGroup({self.options()}, {len(self.params)} params)"
