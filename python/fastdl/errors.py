"""Exceptions of fastdl and the search for the user's line that caused them."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

_LIBRARY = (str(Path(__file__).parent), str(Path(np.__file__).parent))
_STANDARD = str(Path(os.__file__).parent)


class CaptureError(RuntimeError):
    """A captured function did something that a recording cannot repeat.

    The text names the file and line, and what to do instead.
    """


class Interrupted(KeyboardInterrupt):
    """Ctrl-C stopped `CapturedStep.run` between two steps.

    Attributes
    ----------
    results
        What the run had returned so far.
    resume
        Pass it as ``run(..., resume=...)`` to go on, bit for bit.
    """

    def __init__(self, text: str, results: Any, resume: Any) -> None:
        super().__init__(text)
        self.results, self.resume = results, resume


def user_line() -> str:
    """Return ``file:line`` of the innermost frame that is the user's own code."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_library(frame.f_code.co_filename):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


@functools.cache  # asked for every frame of every recorded call
def _is_library(filename: str) -> bool:
    standard = filename.startswith(_STANDARD) and "site-packages" not in filename
    return standard or filename.startswith(_LIBRARY)


def capture_error(what: str, remedy: str) -> CaptureError:
    """Build the error for something at the user's line that cannot be recorded."""
    return CaptureError(f"capture: {user_line()} {what} while a step is recorded; {remedy}")
