"""Exceptions of fastdl and the search for the user's line that caused them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

_LIBRARY = (str(Path(__file__).parent), str(Path(np.__file__).parent))


class CaptureError(RuntimeError):
    """A captured function did something that a recording cannot repeat.

    The text names the file and line, and what to do instead.
    """


def user_line() -> str:
    """Return ``file:line`` of the innermost frame outside fastdl and NumPy."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARY):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def capture_error(what: str, remedy: str) -> CaptureError:
    """Build the error for something at the user's line that cannot be recorded."""
    return CaptureError(f"capture: {user_line()} {what} while a step is recorded; {remedy}")
