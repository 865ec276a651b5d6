"""Stand between the core and a cache plugin: late, failing and closed caches are misses.

A call after `close` does not reach the plugin, and `close` waits for the calls in flight. A cache with a `deadline` is
called in threads of its own: a late call is a miss, and the cache then rests, so that one read waits for it and not
all. The first failure of each kind is a warning that names the plugin; what follows is logged at DEBUG.
`GuardedCache._idle` guards the count of calls in flight; nothing is called while it is held.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from lazylayer.api.cache import Cache, CachedValue, CacheStatistics
from lazylayer.logger import logger

__all__ = ["GuardedCache"]

_Answer = TypeVar("_Answer")

_SLOW = 1.0
"""Seconds after which a call of a cache without a deadline is worth a warning."""
_FIRST_REST, _LONGEST_REST = 1.0, 60.0
"""Seconds in which a cache that was late is not asked; doubled while it stays late."""
_CLOSE_SECONDS = 5.0
"""Seconds that `close` waits for calls in flight."""


class GuardedCache(Cache):
    """A cache plugin's cache, as the core uses it. No method raises."""

    def __init__(self, plugin: str, cache: Cache) -> None:
        self.deadline = cache.deadline
        self._plugin = plugin
        self._cache = cache
        self._idle = threading.Condition()
        self._in_flight = 0
        self._closed = False
        self._told: set[str] = set()
        self._rest = 0.0
        self._rests_until = 0.0

    def __str__(self) -> str:
        return self._plugin

    def get(self, key: str) -> bytes | None:
        """Return the value under `key`, or None."""
        return self._ask("get a value", lambda: self._cache.get(key), None)

    def put(self, key: str, data: bytes) -> None:
        """Keep a value, if the cache takes it."""
        self._ask("put a value", lambda: self._cache.put(key, data), None)

    def open(self, key: str) -> CachedValue | None:
        """Return the value under `key`, open for reading, or None."""
        value = self._ask("open a value", lambda: self._cache.open(key), None)
        return value if value is None or self.deadline is None else _GuardedValue(self, value)

    def has(self, key: str) -> bool:
        """Return True if the value is there."""
        return self._ask("look for a value", lambda: self._cache.has(key), False)

    def remove(self, key: str) -> None:
        """Drop a value."""
        self._ask("remove a value", lambda: self._cache.remove(key), None)

    def statistics(self) -> CacheStatistics | None:
        """Return how full the cache is, or None."""
        return self._ask("tell how full it is", self._cache.statistics, None)

    def close(self) -> None:
        """Let calls in flight end, and close the cache, once."""
        with self._idle:
            if self._closed:
                return
            self._closed = True
            self._idle.wait_for(lambda: not self._in_flight, _CLOSE_SECONDS)
        try:
            self._cache.close()
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises
            self._tell("close", repr(error))

    def _ask(self, what: str, question: Callable[[], _Answer], otherwise: _Answer) -> _Answer:
        with self._idle:
            if self._closed or time.monotonic() < self._rests_until:
                return otherwise
            self._in_flight += 1
        started = time.monotonic()
        if self.deadline is None:
            try:
                return self._answer(what, question, otherwise)
            finally:
                took = time.monotonic() - started
                if took > _SLOW:
                    self._tell(f"{what} quickly", f"it took {took:.1f} s, which readers waited")
        answer: Future[_Answer] = Future()
        _in_thread(lambda: answer.set_result(self._answer(what, question, otherwise)))
        try:
            found = answer.result(self.deadline)
        except TimeoutError:
            self._rest = min(2 * self._rest or _FIRST_REST, _LONGEST_REST)
            self._rests_until = time.monotonic() + self._rest
            self._tell(f"{what} in time", f"no answer in {self.deadline:g} s; it is not asked for {self._rest:g} s")
            return otherwise
        self._rest = 0.0
        return found

    def _answer(self, what: str, question: Callable[[], _Answer], otherwise: _Answer) -> _Answer:
        try:
            return question()
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises is a miss
            self._tell(what, repr(error))
            return otherwise
        finally:
            with self._idle:
                self._in_flight -= 1
                self._idle.notify_all()

    def _tell(self, what: str, why: str) -> None:
        level = "DEBUG" if what in self._told else "WARNING"
        self._told.add(what)
        logger.log(level, "cache plugin {plugin} failed to {what}: {why}", plugin=self._plugin, what=what, why=why)


class _GuardedValue(CachedValue):
    """A value of a cache with a deadline."""

    def __init__(self, cache: GuardedCache, value: CachedValue) -> None:
        self.size = value.size
        self._cache = cache
        self._value = value

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the value. Raises OSError if the cache fails, or is late."""
        data = self._cache._ask("read a value", lambda: self._value.read(offset, size), None)
        if data is None:
            raise OSError("the cache does not answer")
        return data

    def close(self) -> None:
        """Close the value, when no read that is late uses it any more."""
        _in_thread(self._value.close)


def _in_thread(call: Callable[[], None]) -> None:
    threading.Thread(target=call, name="lazylayer-cache", daemon=True).start()
