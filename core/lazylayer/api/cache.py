"""What a cache plugin returns: a store of immutable values by key.

The core keeps two kinds of value: *chunks*, the verified uncompressed pieces of files, whose key is
their digest; and *ranges*, compressed bytes of a blob, whose key names blob and range. To a cache
both are bytes under a key. A key is 1 to 128 characters of `[a-z0-9:._-]`, never `.` or `..`, and
whoever puts a value under a key promises that every value ever put there is the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import msgspec

__all__ = ["Cache", "CachePurpose", "CacheStatistics", "CachedValue", "ValueInMemory"]

CachePurpose = Literal["chunks", "ranges"]


class CachedValue(ABC):
    """One value that a cache holds, open for reading.

    It stays readable, with the same bytes, until `close`, also when the cache evicts or removes it
    in the meantime. Safe to use from several threads at once.
    """

    size: int
    """Bytes in the value."""

    @abstractmethod
    def read(self, offset: int, size: int) -> bytes:
        """The bytes from `offset`, at most `size` of them, fewer only at the end of the value.

        Raises OSError if they cannot be read; the core then treats the value as missing.
        """

    def close(self) -> None:
        """Gives back what the value holds (a descriptor); reading after it is an error."""


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
    """How full a cache is: values held, their bytes, and its limit in bytes (0: none)."""

    entries: int
    bytes: int
    limit: int


class Cache(ABC):
    """A bounded store of immutable values.

    A plugin must write `get` and `put`; the other methods work on top of these two and may be
    overridden where the store can do better. All methods may be called from several threads at
    once. A cache is never the reason for a failed read: what goes wrong inside it (a full disk, a
    torn file) is a miss, or a value not kept, and is logged by the cache once, not per call.
    """

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """The value under `key`, whole, or None. It counts as a use for eviction."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Keeps `data` under `key`, or does not: too large, no room, an error are all silent.

        Once it returns, `get` finds the value or nothing, never a part of it.
        """

    def open(self, key: str) -> CachedValue | None:
        """The value under `key`, open for partial reads, or None. It counts as a use."""
        data = self.get(key)
        return None if data is None else ValueInMemory(data)

    def has(self, key: str) -> bool:
        """Whether `get` would find a value now. Cheap, and not a use."""
        return self.get(key) is not None

    def remove(self, key: str) -> None:
        """Forgets the value under `key`, which proved to be bad or is not needed any more."""

    def statistics(self) -> CacheStatistics | None:
        """How full the cache is, or None where it cannot tell."""
        return None

    def close(self) -> None:
        """Gives back what the cache holds. Values on disk stay for the next process."""


class NoCache(Cache):
    """Keeps nothing."""

    def get(self, key: str) -> bytes | None:
        """None."""
        del key
        return None

    def put(self, key: str, data: bytes) -> None:
        """Nothing happens."""
        del key, data
