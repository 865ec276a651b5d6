"""A budget for looking into an image's files, so that no image costs a node more than its share.

Images are made by strangers. Parsers here take linear time, and besides they pay for each byte that they
look at and each path that they look up; a budget that is used up ends the search, not the mount.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from lazylayer.api.opened import OpenedFile

__all__ = ["Budget", "Files", "MeteredFiles", "OverBudgetError"]

_WORK = 1024 * 1024 * 1024
_SECONDS = 10.0
_BETWEEN_LOOKS = 4096
"""Units of work between two looks at the clock."""
_LOOKUP = 1024
"""Units for one path: a chain of links may cost as much as that many bytes."""


class OverBudgetError(Exception):
    """The image has used up what may be spent on it."""


class Budget:
    """The cost that looking into the files of one image may have. Safe to use from any thread.

    :param work: units; a unit is a byte looked at, or a step of about that cost.
    :param seconds: processor time of the threads that look, not counting what they wait for.
    :param clock: the processor time of the calling thread, in seconds.
    """

    def __init__(
        self, work: int = _WORK, seconds: float = _SECONDS, clock: Callable[[], float] = time.thread_time
    ) -> None:
        self._work = work
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._settled = 0
        self._used = 0.0
        self._mine = _Unsettled(clock)

    @property
    def spent(self) -> int:
        """Units that were spent, other threads' latest ones left out."""
        return self._settled + self._mine.work

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Count the calling thread's time until the block ends. Raises OverBudgetError."""
        self._mine.since = self._clock()
        self._settle()
        try:
            yield
        finally:
            with self._lock:
                self._add()

    def spend(self, work: int) -> None:
        """Pay for work. Raises OverBudgetError if the budget, or the time, is used up."""
        self._mine.work += work
        if self._mine.work >= _BETWEEN_LOOKS:
            self._settle()

    def _settle(self) -> None:
        with self._lock:
            self._add()
            if self._settled > self._work or self._used > self._seconds:
                raise OverBudgetError(f"after {self._settled} units of work and {self._used:.1f} s")

    def _add(self) -> None:
        now = self._clock()
        self._settled += self._mine.work
        self._used += now - self._mine.since
        self._mine.work, self._mine.since = 0, now


class _Unsettled(threading.local):
    """The use of one thread that is not in the sums yet."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.work = 0
        self.since = clock()


class Files(Protocol):
    """The files of an image, as `OpenedImage` finds them."""

    def find(self, path: bytes) -> OpenedFile | None:
        """Return what a container would find at `path`, symlinks followed, or None."""

    def names(self, path: bytes) -> list[bytes]:
        """Return the names in the directory at `path`; or nothing if there is none."""


class MeteredFiles:
    """The files of an image, each lookup paid for. Raises OverBudgetError besides."""

    def __init__(self, files: Files, budget: Budget) -> None:
        self._files = files
        self._budget = budget

    def find(self, path: bytes) -> OpenedFile | None:
        """Return what a container would find at `path`, symlinks followed, or None."""
        self._budget.spend(_LOOKUP + len(path))
        return self._files.find(path)

    def names(self, path: bytes) -> list[bytes]:
        """Return the names in the directory at `path`; or nothing if there is none."""
        self._budget.spend(_LOOKUP + len(path))
        names = self._files.names(path)
        self._budget.spend(_LOOKUP + len(names))
        return names
