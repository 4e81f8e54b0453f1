"""Threads, instruction sets, and what this installation is."""

from __future__ import annotations

from fastdl import _core
from fastdl._core import (
    backends,
    empty_pool,
    get_num_threads,
    set_num_threads,
    set_pool_bytes,
    use_backend,
)

__all__ = [
    "backends",
    "empty_pool",
    "get_num_threads",
    "set_num_threads",
    "set_pool_bytes",
    "show_config",
    "use_backend",
]


def show_config() -> str:
    """Return what fastdl runs on, one ``name: value`` per line."""
    from fastdl import cuda

    facts = {**_core.config(), "cuda": cuda.status()}
    return "\n".join(f"{name}: {value}" for name, value in facts.items())
