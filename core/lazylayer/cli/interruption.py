"""End a command within a second of Ctrl-C, whatever its threads wait for.

Python raises KeyboardInterrupt in the main thread, and the command gives back what it holds. What it waits for
meanwhile, a request say, is told to fail; and when the time is over, the process exits all the same.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["EXIT_INTERRUPTED", "Interruption"]

EXIT_INTERRUPTED = 130
"""As if SIGINT had ended the process, which a shell expects."""

_END_WITHIN = 0.8
"""Seconds from SIGINT to the end of the process."""

_SHOW_CURSOR = b"\x1b[?25h"
"""A progress bar has hidden it."""


class Interruption:
    """The end of a command on SIGINT. Start it in the main thread.

    The signal arrives through a pipe, in a thread of its own: a call to C in the main thread delays it no longer.
    """

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] = []

    def start(self) -> None:
        """Wait for SIGINT in the background. Another owner of signals, `Ending`, replaces this one."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), name="lazylayer-interruption", daemon=True).start()

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call `callback`, from another thread, if SIGINT arrives meanwhile."""
        self._callbacks.append(callback)
        try:
            yield
        finally:
            self._callbacks.remove(callback)

    def _watch(self, reading: int) -> None:
        while signal.SIGINT not in os.read(reading, 64):
            pass
        for callback in tuple(self._callbacks):
            threading.Thread(target=callback, name="lazylayer-interrupt", daemon=True).start()
        time.sleep(_END_WITHIN)
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)
        os._exit(EXIT_INTERRUPTED)
