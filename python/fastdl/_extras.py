"""Optional packages, and the one sentence a user gets when one is missing."""

from __future__ import annotations

import importlib
from typing import Any

_PIP_NAMES = {"sklearn": "scikit-learn"}


class MissingExtraError(ImportError):
    """A feature needs an optional package that is not installed."""


def need(module: str, purpose: str, extra: str = "train") -> Any:
    """Import an optional module, or say how to install it.

    Parameters
    ----------
    module : str
        Dotted module name, e.g. ``"matplotlib.figure"``.
    purpose : str
        What needs it; the subject of the sentence, e.g. ``"History.plot"``.
    extra : str
        The extra of fastdl that brings the package.

    Raises
    ------
    MissingExtraError
        The package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(
            f"{purpose} needs {_PIP_NAMES.get(package, package)}, which cannot be imported"
            f' ({error}); install it with: pip install "fastdl[{extra}]"'
        ) from error
