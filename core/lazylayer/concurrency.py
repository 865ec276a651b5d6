"""Run calls concurrently, or one after the other, in daemon threads: a stuck call never delays process exit.

`concurrent.futures` joins its threads at the end of a process, however long they wait for a network.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Generic, TypeVar

from lazylayer.logger import logger

__all__ = ["BackgroundWorkers", "run_concurrently", "run_in_background"]

_LONGEST_PAUSE = 120.0

_Result = TypeVar("_Result")
_Turn = TypeVar("_Turn")


def run_concurrently(calls: Sequence[Callable[[], _Result]], name: str, at_once: int) -> list[Future[_Result]]:
    """Run `calls`, at most `at_once` of them at a time, and return their futures in order when all have ended.

    The calling thread is one of those that work; `name` is the name of the others.
    """
    futures: list[Future[_Result]] = [Future() for _ in calls]
    waiting = iter(list(zip(calls, futures, strict=True)))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                call, future = next(waiting, (None, None))
            if call is None or future is None:
                return
            _settle(future, call)

    with suppress(RuntimeError):  # no more threads can be had: then there are fewer
        for _ in range(min(len(futures), at_once) - 1):
            threading.Thread(target=work, name=name, daemon=True).start()
    work()
    wait(futures)
    return futures


def run_in_background(call: Callable[[], _Result], name: str) -> Future[_Result]:
    """Run `call` in a daemon thread of this name, and return its future."""
    future: Future[_Result] = Future()
    threading.Thread(target=_settle, args=(future, call), name=name, daemon=True).start()
    return future


def _settle(future: Future[_Result], call: Callable[[], _Result]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - the caller finds it in the future
        future.set_exception(error)


class BackgroundWorkers(Generic[_Turn]):
    """A few threads that take background tasks in turn, one piece of work at a time.

    A task is a callable that does one piece of work within the turn that `wait_turn` gave, and returns True if there
    is more to do. Without a turn, None, the workers end. A task that raises is tried again after `first_pause` seconds,
    then after twice as long, and so on up to two minutes; the task has reported the error. Threads start with the
    first task.
    """

    def __init__(self, wait_turn: Callable[[], _Turn | None], workers: int, first_pause: float = 1.0) -> None:
        self._wait_turn = wait_turn
        self._workers = workers
        self._first_pause = first_pause
        self._changed = threading.Condition()
        self._tasks: deque[_Task[_Turn]] = deque()
        self._known: dict[Callable[[_Turn], bool], _Task[_Turn]] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False

    def add(self, work: Callable[[_Turn], bool]) -> None:
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

    def remove(self, work: Callable[[_Turn], bool]) -> None:
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
            turn = self._wait_turn()
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

    def _next(self) -> _Task[_Turn] | None:
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

    def _work(self, task: _Task[_Turn], turn: _Turn) -> bool:
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


class _Task(Generic[_Turn]):
    __slots__ = ("not_before", "pause", "work")

    def __init__(self, work: Callable[[_Turn], bool]) -> None:
        self.work: Callable[[_Turn], bool] | None = work  # None once it was removed: nothing keeps it then
        self.not_before = 0.0
        self.pause = 0.0
