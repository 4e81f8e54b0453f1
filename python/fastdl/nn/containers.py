"""Modules that hold modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fastdl.nn.module import Module


class _Numbered(Module):
    """Sub-modules named "0", "1", ..."""

    def __init__(self, modules: Iterable[Module]) -> None:
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> None:
        """Add a module at the end."""
        if not isinstance(module, Module):
            raise TypeError(
                f"{type(self).__name__}: every entry must be a Module, got {type(module).__name__}"
            )
        setattr(self, str(len(self)), module)

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, i: int) -> Module:
        return list(self.children())[i]


class ModuleList(_Numbered):
    """A list of modules whose parameters belong to the model.

    Parameters
    ----------
    modules : iterable of Module
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__(modules)


class Sequential(_Numbered):
    """Modules one after the other.

    Parameters
    ----------
    *modules : Module
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def forward(self, X: Any) -> Any:
        """Return the last module's result."""
        for module in self.children():
            X = module(X)
        return X
