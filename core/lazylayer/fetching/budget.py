"""Bound the memory of bytes that are being inflated or hashed, in the whole process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ByteBudget"]


class ByteBudget:
    """Bytes that may be in use at the same time. Safe to use from any thread; do not nest uses.

    Uses that wait get their turn in the order in which they came, so that large ones are not starved.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def use(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes are free, and hold them inside. A larger size than the limit is used alone."""
        size = min(size, self._limit)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._used + size <= self._limit)
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify()
