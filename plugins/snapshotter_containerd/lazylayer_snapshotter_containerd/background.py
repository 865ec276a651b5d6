"""Run calls in daemon threads: the daemon never waits for a registry when it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

__all__ = ["run_all", "run_in_background"]

_Result = TypeVar("_Result")

_AT_ONCE = 16
"""An image may have more than a hundred layers: each has connections, descriptors and threads of its own."""


def run_in_background(call: Callable[[], _Result], name: str) -> Future[_Result]:
    """Run `call` in a thread of this name, and return its future."""
    future: Future[_Result] = Future()

    def settle() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - the caller finds it in the future
            future.set_exception(error)

    threading.Thread(target=settle, name=name, daemon=True).start()
    return future


def run_all(calls: Sequence[Callable[[], _Result]], name: str) -> list[Future[_Result]]:
    """Run calls concurrently, some at a time; return their futures in order when all have ended."""
    with ThreadPoolExecutor(_AT_ONCE, name) as threads:
        futures = [threads.submit(call) for call in calls]
        wait(futures)
    return futures
