"""A cache that notes the keys it is asked for, so that a check can leave a shared store as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Self

from lazylayer.api.cache import Cache, CachedValue, CacheStatistics

__all__ = ["RecordingCache", "forget"]


class RecordingCache(Cache):
    """Calls `cache`, and adds each key that it is asked for to `touched`."""

    def __init__(self, cache: Cache, touched: set[str]) -> None:
        self._cache = cache
        self._touched = touched

    @classmethod
    def over(cls, make_cache: Callable[..., Cache], touched: set[str], *, max_bytes: int) -> Self:
        """Open a cache and record it. A `functools.partial` of this is picklable if `make_cache` is."""
        return cls(make_cache(max_bytes=max_bytes), touched)

    def get(self, key: str) -> bytes | None:
        """Return what the cache returns."""
        self._touched.add(key)
        return self._cache.get(key)

    def put(self, key: str, data: bytes) -> None:
        """Put into the cache."""
        self._touched.add(key)
        self._cache.put(key, data)

    def open(self, key: str) -> CachedValue | None:
        """Open what the cache opens."""
        self._touched.add(key)
        return self._cache.open(key)

    def has(self, key: str) -> bool:
        """Ask the cache."""
        return self._cache.has(key)

    def remove(self, key: str) -> None:
        """Remove from the cache."""
        self._cache.remove(key)

    def statistics(self) -> CacheStatistics | None:
        """Return the statistics of the cache."""
        return self._cache.statistics()

    def close(self) -> None:
        """Close the cache."""
        self._cache.close()


def forget(cache: Cache, keys: Iterable[str]) -> None:
    """Remove the values of these keys, and close the cache."""
    for key in keys:
        cache.remove(key)
    cache.close()
