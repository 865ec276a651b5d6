"""Run calls concurrently in daemon threads, so that a stuck call never delays process exit.

`concurrent.futures` joins its threads at the end of a process, however long they wait for a network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import TypeVar

__all__ = ["run_concurrently", "run_in_background"]

_Result = TypeVar("_Result")


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
