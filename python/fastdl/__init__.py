"""Train neural networks straight from NumPy at the speed of the hardware.

The parts: `fastdl.ops` (operations), `fastdl.nn` (layers and losses), `fastdl.optim` (optimizers),
`capture` (a training step as one native call), `fastdl.train` and the ``fastdl`` command.
"""

from __future__ import annotations

import importlib
from typing import Any

from fastdl import nn, ops, optim
from fastdl._array import bfloat16_dtype
from fastdl._dlpack import from_dlpack
from fastdl.capture import CapturedStep, capture
from fastdl.config import (
    backends,
    empty_pool,
    get_num_threads,
    set_num_threads,
    set_pool_bytes,
    show_config,
    use_backend,
)
from fastdl.errors import CaptureError, Interrupted
from fastdl.inference import CompiledModel, compile  # noqa: A004  (torch's name)
from fastdl.random import Generator, manual_seed
from fastdl.tape import is_grad_enabled, no_grad
from fastdl.tensor import Tensor, tensor

__version__ = "0.1.0"

__version__ = "0.1.0"

__all__ = [
    "CaptureError",
    "CapturedStep",
    "CompiledModel",
    "Generator",
    "Interrupted",
    "Tensor",
    "__version__",
    "backends",
    "capture",
    "compile",
    "cuda",
    "data",
    "empty_pool",
    "from_dlpack",
    "get_num_threads",
    "is_grad_enabled",
    "load",
    "manual_seed",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "save",
    "set_num_threads",
    "set_pool_bytes",
    "show_config",
    "tensor",
    "testing",
    "train",
    "use_backend",
]

_LATE_MODULES = ("cuda", "data", "sklearn", "testing", "train")
_LATE_NAMES = {"load": "fastdl.io", "save": "fastdl.io"}


def __getattr__(name: str) -> Any:
    """Import what ``import fastdl`` leaves out, when it is used first."""
    if name in _LATE_MODULES:
        return importlib.import_module(f"fastdl.{name}")
    if name == "bfloat16":  # not in __all__: `import *` must not need ml_dtypes
        return bfloat16_dtype()
    if name in _LATE_NAMES:
        return getattr(importlib.import_module(_LATE_NAMES[name]), name)
    raise AttributeError(f"module 'fastdl' has no attribute {name!r}")
