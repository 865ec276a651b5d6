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
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lazylayer.logger import logger

__all__ = ["BackgroundWorkers", "Scheduler", "Turn"]

_LONGEST_PAUSE = 120.0


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
    """Keeps count of the foreground work under way. Safe to use from any thread."""

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


class BackgroundWorkers:
    """A few threads that take background tasks in turn, one piece of work at a time.

    A task is a callable that does one piece of work within the turn it is given and returns True if there is
    more to do. One that raises is tried again after `first_pause` seconds, then after twice as long, and so on
    up to two minutes; the task has reported the error. Threads start with the first task.
    """

    def __init__(self, scheduler: Scheduler, workers: int, first_pause: float = 1.0) -> None:
        self._scheduler = scheduler
        self._workers = workers
        self._first_pause = first_pause
        self._changed = threading.Condition()
        self._tasks: deque[_Task] = deque()
        self._known: dict[Callable[[Turn], bool], _Task] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False

    def add(self, work: Callable[[Turn], bool]) -> None:
        """Put a task at the end of the queue."""
        with self._changed:
            if self._closed:
                return
            self._known[work] = task = _Task(work)
            self._tasks.append(task)
            if len(self._threads) < min(self._workers, len(self._tasks)):
                thread = threading.Thread(target=self._run, name="lazylayer-background", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify()

    def remove(self, work: Callable[[Turn], bool]) -> None:
        """Forget a task; a piece of its work that runs now ends by itself, and is its last."""
        with self._changed:
            task = self._known.pop(work, None)
            if task is not None:
                task.work = None
                self._tasks = deque(each for each in self._tasks if each is not task)

    def close(self) -> None:
        """Stop after the pieces of work that run now, and wait for the threads."""
        with self._changed:
            self._closed = True
            self._tasks.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (task := self._next()) is not None:
            turn = self._scheduler.wait_turn()
            if turn is None:
                return
            more = self._work(task, turn)
            with self._changed:
                if more and task.work is not None and not self._closed:
                    self._tasks.append(task)
                    self._changed.notify()
                elif task.work is not None:
                    self._known.pop(task.work, None)
                    task.work = None

    def _next(self) -> _Task | None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                for task in self._tasks:
                    if task.not_before <= now:
                        self._tasks.remove(task)
                        return task
                pause = min((task.not_before for task in self._tasks), default=None)
                self._changed.wait(None if pause is None else pause - now)
            return None

    def _work(self, task: _Task, turn: Turn) -> bool:
        work = task.work
        if work is None:
            return False
        try:
            more = work(turn)
        except Exception as error:  # noqa: BLE001 - one task must not end the worker
            task.pause = min(max(task.pause * 2, self._first_pause), _LONGEST_PAUSE)
            task.not_before = time.monotonic() + task.pause
            logger.debug("background task failed, next try in {pause:.0f} s: {error}", pause=task.pause, error=error)
            return True
        task.pause = 0.0
        return more


class _Task:
    __slots__ = ("not_before", "pause", "work")

    def __init__(self, work: Callable[[Turn], bool]) -> None:
        self.work: Callable[[Turn], bool] | None = work  # None once it was removed: nothing keeps it then
        self.not_before = 0.0
        self.pause = 0.0
