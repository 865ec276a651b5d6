"""End a program on SIGTERM or SIGINT within seconds, whatever its threads wait for."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Self

from lazylayer.logger import logger

__all__ = ["END_WITHIN", "Ending"]

END_WITHIN = 4.5
"""Seconds from the signal to the end of the process."""


class Ending:
    """The end of a program, as an event. A context manager, entered in the main thread.

    Python handles a signal when the main thread runs, and the kernel may deliver it to any thread, which does
    not wake the main thread from a lock. So signals arrive through a socket, in a thread of their own. From
    then on, the process has `seconds` to end in order; then it exits without waiting for its threads.

    `seconds` may be changed until a signal arrives.

    :param interrupt: called in that thread as soon as a signal arrives.
    """

    def __init__(self, interrupt: Callable[[], None] = lambda: None, seconds: float = END_WITHIN) -> None:
        self.received = 0
        """The signal that arrived, or 0."""
        self._interrupt = interrupt
        self.seconds = seconds
        self._begun = threading.Event()

    def __enter__(self) -> Self:
        reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        self._earlier = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._watch, args=(reading,), name="lazylayer-ending", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._earlier)
        self._writing.close()

    def begin(self) -> None:
        """End `wait` without a signal."""
        self._begun.set()

    def wait(self) -> int:
        """Wait for SIGTERM, SIGINT or `begin`; return the signal, or 0."""
        self._begun.wait()
        return self.received

    def _watch(self, reading: socket.socket) -> None:
        with reading:
            while self.received not in (signal.SIGTERM, signal.SIGINT):
                data = reading.recv(1)
                if not data:
                    return
                self.received = data[0]
        deadline = threading.Timer(self.seconds, self._give_up)
        deadline.daemon = True
        deadline.start()
        self._begun.set()
        self._interrupt()

    def _give_up(self) -> None:
        waiting = sorted({each.name for each in threading.enumerate()} - {threading.current_thread().name})
        logger.warning(
            "exiting {seconds:g} s after the signal, although these threads still run: {waiting}",
            seconds=self.seconds,
            waiting=", ".join(waiting),
        )
        os._exit(1)
