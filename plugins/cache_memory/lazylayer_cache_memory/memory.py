"""A bounded store in memory, and sections of it.

The lock is `MemoryCache._lock`; it is held for dictionary operations only.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from lazylayer.api.cache import Cache, CacheStatistics

__all__ = ["MemoryCache", "Section"]

ENTRY_BYTES = 256
"""Cost of a value beside its bytes: two objects with their headers, and a place in the dictionary."""


class MemoryCache(Cache):
    """Values in RAM. Safe to use from any thread.

    :param max_bytes: what the values and their keys may take up, `ENTRY_BYTES` included for each.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._limit = max_bytes
        self._lock = threading.Lock()
        self._values: OrderedDict[str, bytes] = OrderedDict()
        self._held = 0

    def get(self, key: str) -> bytes | None:
        """Return the value under `key`, now the most recently used one, or None."""
        with self._lock:
            data = self._values.get(key)
            if data is not None:
                self._values.move_to_end(key)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep `data`, unless it is larger than the whole cache."""
        size = len(data) + ENTRY_BYTES
        if size > self._limit:
            return
        data = bytes(data)  # copies only what is not bytes, so that the kept value cannot change
        with self._lock:
            known = self._values.pop(key, None)
            if known is not None:
                self._held -= len(known) + ENTRY_BYTES
            self._values[key] = data
            self._held += size
            while self._held > self._limit:
                _, oldest = self._values.popitem(last=False)
                self._held -= len(oldest) + ENTRY_BYTES

    def has(self, key: str) -> bool:
        """Return True if `get` would find a value. It does not count as a use."""
        return key in self._values

    def remove(self, key: str) -> None:
        """Forget the value under `key`."""
        with self._lock:
            data = self._values.pop(key, None)
            if data is not None:
                self._held -= len(data) + ENTRY_BYTES

    def remove_section(self, prefix: str) -> None:
        """Forget all values whose keys begin with `prefix`."""
        with self._lock:
            keys = [key for key in self._values if key.startswith(prefix)]
        for key in keys:
            self.remove(key)

    def statistics(self) -> CacheStatistics:
        """Return how full the cache is."""
        with self._lock:
            return CacheStatistics(len(self._values), self._held, self._limit)

    def close(self) -> None:
        """Forget everything."""
        self.remove_section("")


class Section(Cache):
    """The part of a store that is for one purpose; the limit is shared with the other parts."""

    def __init__(self, store: MemoryCache, purpose: str) -> None:
        self._store = store
        self._prefix = f"{purpose}/"  # no key has a slash

    def get(self, key: str) -> bytes | None:
        """Do as the store's `get`."""
        return self._store.get(self._prefix + key)

    def put(self, key: str, data: bytes) -> None:
        """Do as the store's `put`."""
        self._store.put(self._prefix + key, data)

    def has(self, key: str) -> bool:
        """Do as the store's `has`."""
        return self._store.has(self._prefix + key)

    def remove(self, key: str) -> None:
        """Do as the store's `remove`."""
        self._store.remove(self._prefix + key)

    def statistics(self) -> CacheStatistics:
        """Return how full the whole store is, since the limit is for the whole."""
        return self._store.statistics()

    def close(self) -> None:
        """Forget the values of this section."""
        self._store.remove_section(self._prefix)
