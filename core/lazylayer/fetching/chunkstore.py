"""Verified chunks, shared by all layers: the cache plugin behind one door that lets nothing bad out.

Chunks lie in the cache under their digest. What comes back from the cache is verified again, once
per opening, unless this process put it there. Opened chunks are kept in a small set, so that the
reads of one large chunk neither open nor verify it again. A chunk without a digest cannot be
verified: only what this process put there is believed, whatever others left in the cache.

Its lock is `ChunkStore._lock`; nothing is read, written or hashed while it is held.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from loguru import logger

from lazylayer.api.cache import Cache, CachedValue, ValueInMemory

__all__ = ["ChunkStore"]

OPEN_CHUNKS = 128
HOMELESS_BYTES = 64 * 1024 * 1024
"""Bytes of chunks that are kept open although the cache did not take them."""
WRITTEN_CHUNKS = 65_536
"""How many chunks are remembered as put by this process, 80 bytes of memory each; others are verified."""


class _OpenChunk:
    __slots__ = ("homeless", "retired", "users", "value")

    def __init__(self, value: CachedValue, homeless: int) -> None:
        self.value = value
        self.homeless = homeless
        self.users = 0
        self.retired = False


class ChunkStore:
    """The chunks of all layers. Safe to use from any thread.

    A chunk is named by `key`; `digest` is its raw sha256, or empty where its layer has none (then
    only what this process fetched itself is believed).
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _OpenChunk] = OrderedDict()
        self._homeless = 0
        self._written: set[int] = set()  # of the hashes of keys

    def read(self, key: str, digest: bytes, offset: int, size: int) -> bytes | None:
        """The bytes of a chunk from `offset`, at most `size`, verified; None if it is not here."""
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
            return chunk.value.read(offset, size)
        except OSError as error:
            logger.warning("cached chunk {key} cannot be read and is fetched again: {error}", key=key, error=error)
            self.forget(key)
            return None
        finally:
            self._release(chunk)

    def has(self, key: str, digest: bytes) -> bool:
        """Whether the chunk is here, as far as can be told without reading it."""
        return key in self._open or (self._can_believe(key, digest) and self._in_cache(key))

    def keep(self, key: str, data: bytes) -> None:
        """Keeps a chunk that was just fetched and verified by the caller."""
        if self._in_cache(key):
            self._remove(key)  # who knows what it is; a cache may leave it as it is when asked to put again
        try:
            self._cache.put(key, data)
        except Exception as error:  # noqa: BLE001 - a cache is never the reason for a failed read
            logger.warning("the cache did not take chunk {key}: {error!r}", key=key, error=error)
        if not self._in_cache(key):
            self._insert(key, _OpenChunk(ValueInMemory(data), len(data)))
            return
        with self._lock:
            if len(self._written) >= WRITTEN_CHUNKS:
                self._written.pop()
            self._written.add(hash(key))

    def forget(self, key: str) -> None:
        """Drops a chunk that proved bad, here and in the cache."""
        self._remove(key)
        with self._lock:
            self._written.discard(hash(key))
            chunk = self._open.pop(key, None)
            if chunk is not None:
                self._retire(chunk)
        if chunk is not None:
            self._close_if_idle(chunk)

    def room_for(self, size: int) -> bool:
        """Whether the cache could hold `size` bytes at all, were it empty."""
        statistics = self._cache.statistics()
        return statistics is None or not statistics.limit or size <= statistics.limit

    def close(self) -> None:
        """Closes every open chunk, those that are being read when that is done, and the cache."""
        with self._lock:
            chunks = list(self._open.values())
            self._open.clear()
            for chunk in chunks:
                self._retire(chunk)
        for chunk in chunks:
            self._close_if_idle(chunk)
        self._cache.close()

    def _can_believe(self, key: str, digest: bytes) -> bool:
        return bool(digest) or hash(key) in self._written

    def _open_verified(self, key: str, digest: bytes) -> _OpenChunk | None:
        if not self._can_believe(key, digest):
            return None
        try:
            value = self._cache.open(key)
        except Exception as error:  # noqa: BLE001 - a cache is never the reason for a failed read
            logger.warning("the cache could not open chunk {key}: {error!r}", key=key, error=error)
            return None
        if value is None:
            return None
        if hash(key) not in self._written and not self._verify(value, digest):
            value.close()
            logger.warning("cached chunk {key} is damaged and is fetched again", key=key)
            self.forget(key)
            return None
        return self._insert(key, _OpenChunk(value, 0), users=1)

    def _in_cache(self, key: str) -> bool:
        try:
            return self._cache.has(key)
        except Exception as error:  # noqa: BLE001 - a cache is never the reason for a failed read
            logger.warning("the cache could not look for chunk {key}: {error!r}", key=key, error=error)
            return False

    def _remove(self, key: str) -> None:
        try:
            self._cache.remove(key)
        except Exception as error:  # noqa: BLE001 - a cache is never the reason for a failed read
            logger.warning("the cache could not remove chunk {key}: {error!r}", key=key, error=error)

    @staticmethod
    def _verify(value: CachedValue, digest: bytes) -> bool:
        try:
            return hashlib.sha256(value.read(0, value.size)).digest() == digest
        except OSError:
            return False

    def _insert(self, key: str, chunk: _OpenChunk, users: int = 0) -> _OpenChunk:
        closing: list[_OpenChunk] = []
        with self._lock:
            known = self._open.get(key)
            if known is not None:
                closing.append(chunk)
                chunk.retired = True
                chunk = known
            else:
                self._open[key] = chunk
                self._homeless += chunk.homeless
            chunk.users += users
            while len(self._open) > OPEN_CHUNKS or (self._homeless > HOMELESS_BYTES and len(self._open) > 1):
                _, oldest = self._open.popitem(last=False)
                self._retire(oldest)
                closing.append(oldest)
        for each in closing:
            self._close_if_idle(each)
        return chunk

    def _retire(self, chunk: _OpenChunk) -> None:
        chunk.retired = True
        self._homeless -= chunk.homeless

    def _release(self, chunk: _OpenChunk) -> None:
        with self._lock:
            chunk.users -= 1
            closing = chunk.retired and chunk.users == 0
        if closing:
            chunk.value.close()

    def _close_if_idle(self, chunk: _OpenChunk) -> None:
        with self._lock:
            closing = chunk.retired and chunk.users == 0
        if closing:
            chunk.value.close()
