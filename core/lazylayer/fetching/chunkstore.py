"""Keep verified chunks, shared by all layers: the cache plugin behind one door that lets nothing bad out.

Chunks lie in the cache under their digest. A chunk from the cache is verified again, once per opening,
unless this process put it there. Opened chunks are kept in a small set, so that the reads of one large
chunk neither open nor verify it again. A chunk without a digest cannot be verified: it is believed only if
this process put it there, whatever others left in the cache.

Its lock is `ChunkStore._lock`; nothing is read, written or hashed while it is held.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from lazylayer.api.cache import Cache, CachedValue, ValueInMemory
from lazylayer.api.chunks import MAX_CHUNK_SIZE
from lazylayer.fetching.budget import ByteBudget
from lazylayer.logger import logger

__all__ = ["ChunkStore"]

_OPEN_SHARE = 4
"""Open chunks take up at most this part of the cache: a cache cannot evict what is open."""


class _OpenChunk:
    __slots__ = ("cached", "homeless", "retired", "users", "value")

    def __init__(self, value: CachedValue, homeless: int) -> None:
        self.value = value
        self.cached = 0 if homeless else value.size
        self.homeless = homeless
        self.users = 0
        self.retired = False


class ChunkStore:
    """The chunks of all layers. Safe to use from any thread.

    A chunk is named by `key`; `digest` is its raw sha256, or empty where its layer has none.

    :param cache: where chunks lie; it never raises, as `lazylayer.plugin.guardedcache` sees to.
    :param open_chunks: chunks to keep open.
    :param homeless_bytes: bytes of chunks to keep in memory that the cache did not take.
    :param written_chunks: chunks to remember as put by this process, in 80 bytes each; others are verified when opened.
    :param inflated_bytes: bytes that may be inflated, or read to be verified, at the same time.
    """

    def __init__(
        self,
        cache: Cache,
        open_chunks: int = 128,
        homeless_bytes: int = 64 * 1024 * 1024,
        written_chunks: int = 65_536,
        inflated_bytes: int = 2 * MAX_CHUNK_SIZE,
    ) -> None:
        self.budget = ByteBudget(inflated_bytes)
        self._cache = cache
        self._open_chunks, self._homeless_bytes = open_chunks, homeless_bytes
        self._written_chunks = written_chunks
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _OpenChunk] = OrderedDict()
        self._homeless = self._cached = 0
        self._damaged = False
        self._cached_bytes: float | None = None
        self._written: set[int] = set()  # of the hashes of keys

    def read(self, key: str, digest: bytes, length: int, offset: int, size: int) -> bytes | None:
        """Return the verified bytes of a chunk of `length` bytes from `offset`, at most `size`; None if it is not here.

        A chunk of this digest and another length is not the one that is asked for.
        """
        with self._lock:
            chunk = self._open.get(key)
            if chunk is not None:
                chunk.users += 1
                self._open.move_to_end(key)
        if chunk is None:
            chunk = self._open_verified(key, digest)
            if chunk is None:
                return None
        try:
            return chunk.value.read(offset, size) if chunk.value.size == length else None
        except OSError as error:
            logger.warning("cached chunk {key} cannot be read and is fetched again: {error}", key=key, error=error)
            self.forget(key)
            return None
        finally:
            self._release(chunk, 1)

    def has(self, key: str, digest: bytes) -> bool:
        """Return True if the chunk is here, as far as can be told without reading it."""
        return key in self._open or (self._can_believe(key, digest) and self._cache.has(key))

    def keep(self, key: str, data: bytes) -> None:
        """Keep a chunk that the caller just fetched and verified."""
        if self._cache.has(key):
            self._cache.remove(key)  # it is unverified, and a cache may ignore a second put
        self._cache.put(key, data)
        if not self._cache.has(key):
            self._insert(key, _OpenChunk(ValueInMemory(data), len(data)))
            return
        with self._lock:
            if len(self._written) >= self._written_chunks:
                self._written.pop()
            self._written.add(hash(key))

    def forget(self, key: str) -> None:
        """Drop a chunk that proved bad, here and in the cache."""
        self._cache.remove(key)
        with self._lock:
            self._written.discard(hash(key))
            chunk = self._open.pop(key, None)
            if chunk is not None:
                self._retire(chunk)
        if chunk is not None:
            self._release(chunk, 0)

    def room_for(self, size: int) -> bool:
        """Return True if the cache could hold `size` bytes, were it empty."""
        return size <= self._limit()

    def close(self) -> None:
        """Close every open chunk, those that are being read when that is done, and the cache."""
        with self._lock:
            chunks = list(self._open.values())
            self._open.clear()
            for chunk in chunks:
                self._retire(chunk)
        for chunk in chunks:
            self._release(chunk, 0)
        self._cache.close()

    def _can_believe(self, key: str, digest: bytes) -> bool:
        return bool(digest) or hash(key) in self._written

    def _open_verified(self, key: str, digest: bytes) -> _OpenChunk | None:
        if not self._can_believe(key, digest):
            return None
        value = self._cache.open(key)
        if value is None:
            return None
        if hash(key) not in self._written and not self._verify(value, digest):
            value.close()
            level, self._damaged = "DEBUG" if self._damaged else "WARNING", True
            logger.log(level, "{cache}: chunk {key} is damaged and is fetched again", cache=str(self._cache), key=key)
            self.forget(key)
            return None
        return self._insert(key, _OpenChunk(value, 0), users=1)

    def _verify(self, value: CachedValue, digest: bytes) -> bool:
        try:
            with self.budget.use(value.size):
                return hashlib.sha256(value.read(0, value.size)).digest() == digest
        except OSError:
            return False

    def _insert(self, key: str, chunk: _OpenChunk, users: int = 0) -> _OpenChunk:
        closing: list[_OpenChunk] = []
        cached_bytes = self._most_cached_bytes()
        with self._lock:
            known = self._open.get(key)
            if known is not None:
                closing.append(chunk)
                chunk.retired = True
                chunk = known
            else:
                self._open[key] = chunk
                self._homeless += chunk.homeless
                self._cached += chunk.cached
            chunk.users += users
            while len(self._open) > 1 and (
                len(self._open) > self._open_chunks
                or self._homeless > self._homeless_bytes
                or self._cached > cached_bytes
            ):
                _, oldest = self._open.popitem(last=False)
                self._retire(oldest)
                closing.append(oldest)
        for each in closing:
            self._release(each, 0)
        return chunk

    def _most_cached_bytes(self) -> float:
        """Return how many bytes of the cache may be open."""
        if self._cached_bytes is None:
            self._cached_bytes = self._limit() / _OPEN_SHARE
        return self._cached_bytes

    def _limit(self) -> float:
        known = self._cache.statistics()
        return (known.limit if known is not None else 0) or float("inf")

    def _retire(self, chunk: _OpenChunk) -> None:
        chunk.retired = True
        self._homeless -= chunk.homeless
        self._cached -= chunk.cached

    def _release(self, chunk: _OpenChunk, uses: int) -> None:
        """End uses of a chunk, and close it if it is retired and was used last."""
        with self._lock:
            closing = chunk.retired and chunk.users == uses
            chunk.users -= uses + closing  # below 0 once it is closed, since two threads may end its last uses
        if closing:
            chunk.value.close()
