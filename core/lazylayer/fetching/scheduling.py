"""Put foreground reads before background fetching.

Work that a program waits for (a read, a mount, a check, a prefetch) runs inside `foreground()`. Background work
asks for its turn and, while it runs, asks between pieces whether to make way. A turn comes when no
foreground work has been under way for `silence` seconds. On a node that is never silent, one turn is given
every `starvation` seconds all the same.

The lock of this module is `Scheduler._changed` (a condition); nothing is done while holding it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Scheduler", "Turn"]


class Turn:
    """The right of one background task to run now."""

    __slots__ = ("_scheduler", "insistent")

    def __init__(self, scheduler: Scheduler, insistent: bool) -> None:
        self._scheduler = scheduler
        self.insistent = insistent
        """True for a turn given because of starvation: the task may finish its piece of work in spite of readers."""

    def should_yield(self) -> bool:
        """Return True if the task should stop now, keep what it has, and ask for another turn."""
        return self._scheduler.closed or (not self.insistent and self._scheduler.busy)


class Scheduler:
    """A count of the foreground work under way. Safe to use from any thread."""

    def __init__(self, silence: float, starvation: float) -> None:
        self._silence = silence
        self._starvation = starvation
        self._changed = threading.Condition()
        self._foreground = 0
        self._quiet_since = float("-inf")
        self._last_turn = time.monotonic()
        self.closed = False

    @property
    def busy(self) -> bool:
        """True while foreground work is under way."""
        return self._foreground > 0

    @contextmanager
    def foreground(self) -> Iterator[None]:
        """Mark the work inside as foreground: background tasks make way."""
        with self._changed:
            self._foreground += 1
        try:
            yield
        finally:
            with self._changed:
                self._foreground -= 1
                if not self._foreground:
                    self._quiet_since = time.monotonic()
                    self._changed.notify_all()

    def wait_turn(self) -> Turn | None:
        """Wait until a background task may run; return None if the scheduler was closed meanwhile."""
        with self._changed:
            while not self.closed:
                now = time.monotonic()
                quiet_in = float("inf") if self._foreground else self._quiet_since + self._silence - now
                starved_in = self._last_turn + self._starvation - now
                if quiet_in <= 0 or starved_in <= 0:
                    self._last_turn = now
                    return Turn(self, insistent=quiet_in > 0)
                self._changed.wait(min(quiet_in, starved_in))
            return None

    def close(self) -> None:
        """End all waiting, and have running tasks yield."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
