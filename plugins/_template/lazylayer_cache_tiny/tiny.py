"""The cache itself. It knows nothing of plugins, which makes it easy to test."""

from __future__ import annotations

import threading
from collections import OrderedDict

from loguru import logger

from lazylayer.api.cache import Cache, CachePurpose, CacheStatistics

__all__ = ["TinyCache"]


class TinyCache(Cache):
    """At most `max_bytes` of values in memory. Safe to use from any thread."""

    def __init__(self, *, max_bytes: int, purpose: CachePurpose = "chunks") -> None:
        self._limit = max_bytes
        self._purpose = purpose
        self._lock = threading.Lock()  # get and put are called from many threads at once
        self._values: OrderedDict[str, bytes] = OrderedDict()
        self._held = 0
        self._hits = 0

    def get(self, key: str) -> bytes | None:
        """Return the value under `key`, or None."""
        with self._lock:
            data = self._values.get(key)
            if data is not None:
                self._values.move_to_end(key)
                self._hits += 1
            return data

    def put(self, key: str, data: bytes) -> None:
        """Keep `data`, unless it is larger than the cache."""
        if len(data) > self._limit:
            return
        with self._lock:
            if key in self._values:
                return  # values never change: it is the same one
            self._values[key] = data
            self._held += len(data)
            while self._held > self._limit:
                _, oldest = self._values.popitem(last=False)
                self._held -= len(oldest)

    def has(self, key: str) -> bool:
        """Return True if `get` would find a value. Unlike `get`, it is not a use."""
        return key in self._values

    def remove(self, key: str) -> None:
        """Drop the value under `key`."""
        with self._lock:
            self._held -= len(self._values.pop(key, b""))

    def statistics(self) -> CacheStatistics:
        """Return how full the cache is."""
        with self._lock:
            return CacheStatistics(len(self._values), self._held, self._limit)

    def close(self) -> None:
        """Drop everything, and log how useful it was."""
        with self._lock:
            held, hits = len(self._values), self._hits
            self._values.clear()
            self._held = 0
        logger.debug("cache_tiny: {held} {purpose}, {hits} hits", held=held, purpose=self._purpose, hits=hits)
