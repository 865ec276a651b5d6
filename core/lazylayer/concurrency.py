"""Calls made at the same time, for whose threads no process waits when it ends.

`concurrent.futures` joins its threads at the end of a process, however long they wait for a network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import TypeVar

__all__ = ["run_together"]

_Result = TypeVar("_Result")


def run_together(calls: Sequence[Callable[[], _Result]], name: str, at_once: int) -> list[Future[_Result]]:
    """Makes `calls` at the same time, `at_once` of them at most; returns when all have ended.

    The caller's own thread is one of those that work; `name` is what the others are called. Returns
    what came of each call, in the order of the calls.
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
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - whoever asks for the result is told
                future.set_exception(error)

    with suppress(RuntimeError):  # no thread can be had: then there are fewer
        for _ in range(min(len(futures), at_once) - 1):
            threading.Thread(target=work, name=name, daemon=True).start()
    work()
    wait(futures)
    return futures
