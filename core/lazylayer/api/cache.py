"""The type that a cache plugin returns: a store of immutable values by key.

The core caches *chunks*, the verified uncompressed pieces of files, under their digest, and *ranges*,
compressed bytes of a blob, under a key that names blob and range. To a cache both are bytes under a key.
A key has 1 to 128 characters of `[a-z0-9:._-]` and is never `.` or `..`. The value under a key never
changes: the core always puts the same bytes there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal

import msgspec

__all__ = ["Cache", "CacheEntry", "CachePurpose", "CacheStatistics", "CachedValue", "ValueInMemory"]

CachePurpose = Literal["chunks", "ranges"]


class CachedValue(ABC):
    """A cached value, open for reading.

    It stays readable, with the same bytes, until `close`, even if the cache evicts or removes it
    meanwhile. Safe to use from several threads at once.
    """

    size: int
    """Bytes in the value."""

    @abstractmethod
    def read(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes from `offset`, fewer only at the end of the value.

        Raises OSError if they cannot be read; the core then treats the value as missing.
        """

    def close(self) -> None:
        """Release what the value holds, such as a descriptor. Reading afterwards is an error."""


class ValueInMemory(CachedValue):
    """A value that is a bytes object."""

    __slots__ = ("data", "size")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read(self, offset: int, size: int) -> bytes:  # noqa: D102 - as in CachedValue
        if offset == 0 and size >= self.size:
            return self.data
        return self.data[offset : offset + size]


class CacheStatistics(msgspec.Struct, frozen=True):
    """The fill of a cache: values held, their bytes, and its limit in bytes (0: none)."""

    entries: int
    bytes: int
    limit: int


class CacheEntry(msgspec.Struct, frozen=True):
    """A value in a cache: its key, the bytes that it takes up, and its last use in seconds since the epoch."""

    key: str
    size: int
    used: float


class Cache(ABC):
    """A bounded store of immutable values.

    A plugin must implement `get` and `put`. The other methods are based on these two; override them if
    the store can do better. All methods may be called from several threads at once. A cache never fails a
    read: a failure inside it (a full disk, a torn file) is a miss, or a value not kept. The core takes any
    exception as that and warns once of each kind. It calls nothing after `close`, and no call runs while `close` does.
    """

    deadline: float | None = None
    """Seconds that the core waits for a call; a late one is a miss, and the cache is not asked again for a while.

    Set it for a cache behind a network, to 1.0 say. Such calls cost a thread each; without it, they are made directly.
    """

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """Return the whole value under `key`, or None. It counts as a use for eviction."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Keep `data` under `key`, unless it is too large, there is no room, or an error occurs.

        Afterwards, `get` finds the whole value or nothing.
        """

    def open(self, key: str) -> CachedValue | None:
        """Return the value under `key`, open for partial reads, or None. It counts as a use."""
        data = self.get(key)
        return None if data is None else ValueInMemory(data)

    def has(self, key: str) -> bool:
        """Return True if `get` would find a value now. Cheap, and not a use."""
        return self.get(key) is not None

    def remove(self, key: str) -> None:
        """Drop the value under `key`, which is invalid or no longer needed."""

    def statistics(self) -> CacheStatistics | None:
        """Return how full the cache is, or None if it does not know."""
        return None

    def entries(self) -> Iterable[CacheEntry] | None:
        """Return what `get` would find, in any order, for `lazylayer cache`; None if the cache cannot list it."""
        return None

    def close(self) -> None:
        """Release what the cache holds. Values on disk stay for the next process."""
