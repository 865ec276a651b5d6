"""Answer calls in time: containerd holds locks of the whole node while it waits for a snapshotter."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lazylayer_snapshotter_containerd.logger import logger
from lazylayer_snapshotter_containerd.problems import UnavailableError

__all__ = ["DEADLINE", "Deadline", "Janitor"]

Request = TypeVar("Request")
Answer = TypeVar("Answer")

DEADLINE = 5.0
"""Seconds for each call but those that mount a layer."""


class Deadline:
    """Runs calls in `threads` threads, and waits `seconds` for each. What takes longer goes on by itself.

    containerd removes what such a call made after all, as it does with everything that it does not know.
    """

    def __init__(self, threads: int, seconds: float = DEADLINE) -> None:
        self._threads = ThreadPoolExecutor(threads, "lazylayer-calls")
        self._seconds = seconds

    def call(self, method: Callable[[Request], Answer], request: Request) -> Answer:
        """Return what `method` returns, and raise what it raises; UnavailableError if that takes too long."""
        future = self._threads.submit(method, request)
        try:
            return future.result(self._seconds)
        except TimeoutError:
            if future.done():
                return future.result()
            future.cancel()
            name = method.__name__
            logger.warning("{name} took longer than {seconds:g} s", name=name, seconds=self._seconds)
            message = f"{name}: no answer within {self._seconds:g} s; a disk or a registry is slow, try again"
            raise UnavailableError(message) from None


class Janitor:
    """Runs `clean` in a thread of its own, as often as asked, one at a time.

    The lock is `Janitor._changed`; it is not held while cleaning.
    """

    def __init__(self, clean: Callable[[], None]) -> None:
        self._clean = clean
        self._changed = threading.Condition()
        self._asked = self._done = 0
        self._cleaning = False

    def ask(self, seconds: float) -> bool:
        """Have it clean up what is to be cleaned up now; return True if that was done within `seconds`.

        An error is logged; what failed is tried again the next time.
        """
        with self._changed:
            self._asked += 1
            mine = self._asked
            if not self._cleaning:
                self._cleaning = True
                threading.Thread(target=self._run, name="lazylayer-janitor", daemon=True).start()
            return self._changed.wait_for(lambda: self._done >= mine, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                asked = self._asked
                if self._done == asked:
                    self._cleaning = False
                    return
            try:
                self._clean()
            except Exception as error:  # noqa: BLE001 - the next call tries again
                logger.warning("cleaning up failed: {error!r}", error=error)
            with self._changed:
                self._done = asked
                self._changed.notify_all()
