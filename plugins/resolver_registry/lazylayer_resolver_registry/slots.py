"""Limit the requests in flight to each host, so that a stalled one never takes the turn of others."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from lazylayer.errors import UnavailableError

__all__ = ["HostSlots", "NoSlotError"]


class NoSlotError(Exception):
    """All slots of a host stayed in use."""


class HostSlots:
    """The requests in flight to each host, at most `limit` to one. Safe to use from any thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._taken: Counter[str] = Counter()
        self._closed = False

    @contextmanager
    def take(self, host: str, seconds: float | None) -> Iterator[None]:
        """Hold a slot of `host`; wait at most `seconds` for it, without limit if None.

        Raises NoSlotError after that, and UnavailableError once closed.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or self._taken[host] < self._limit, seconds):
                raise NoSlotError(f"no free connection to {host} within {seconds:g} s ({self._limit} in use)")
            if self._closed:
                raise UnavailableError("lazylayer is ending")
            self._taken[host] += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken[host] -= 1
                if not self._taken[host]:
                    del self._taken[host]
                self._changed.notify_all()

    def close(self) -> None:
        """End all waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
