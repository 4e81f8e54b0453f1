"""Ctrl-C that waits for the end of a step, so that nothing is left half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import numpy as np


class Interrupt:
    """Remembers that Ctrl-C was pressed; `check` raises it where it does no harm.

    ``flag`` holds the same as an array, for native code to look at.
    """

    def __init__(self) -> None:
        self.flag = np.zeros(1, np.uint8)

    @property
    def pressed(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return bool(self.flag[0])

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed."""
        if self.pressed:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.pressed:  # the second press does not wait
            signal.default_int_handler(number, frame)
        self.flag[0] = 1


@contextlib.contextmanager
def deferred() -> Iterator[Interrupt]:
    """Hold Ctrl-C back within the block, if nobody else has taken it over.

    Signals reach the main thread alone; elsewhere, and under a handler of the user's own, the
    block runs as usual and KeyboardInterrupt may come at any line.
    """
    interrupt = Interrupt()
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupt
        return
    signal.signal(signal.SIGINT, interrupt._handle)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
