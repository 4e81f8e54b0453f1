"""Checks of optimizer options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

#: Options that all optimizers have, at the end of the array that their kernels read.
COMMON = ("clip_norm", "ema_decay")


def check_at_least(optimizer: str, options: Mapping[str, Any], low: float, *names: str) -> None:
    """Raise unless the named options are numbers >= ``low``."""
    for name in names:
        value = options[name]
        if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
            raise TypeError(f"{optimizer}: {name} must be a number, got {value!r}")
        if not value >= low:
            raise ValueError(f"{optimizer}: {name} must be a number >= {low:g}, got {value}")


def check_clip_and_ema(optimizer: str, options: Mapping[str, Any]) -> None:
    """Raise unless the options of all optimizers are in range; None stands for 0, which is off."""
    given = {name: 0.0 if options[name] is None else options[name] for name in COMMON}
    check_at_least(optimizer, given, 0, *COMMON)
    if not given["ema_decay"] < 1:
        raise ValueError(f"{optimizer}: ema_decay must be 0 <= d < 1, got {given['ema_decay']}")


def check_flags(optimizer: str, options: Mapping[str, Any], *names: str) -> None:
    """Raise unless the named options are True or False."""
    for name in names:
        if not isinstance(options[name], bool | np.bool_):
            raise TypeError(f"{optimizer}: {name} must be True or False, got {options[name]!r}")
