"""Keep the ranges that were read while layers were opened, behind one door that lets no error out.

`Opening._lock` is held while a range is read, so that readers of the same range share one request.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from lazylayer.api.byteranges import ByteRange, ByteRanges
from lazylayer.api.cache import Cache
from lazylayer.api.oci import Digest
from lazylayer.errors import FormatError, LazylayerError
from lazylayer.fetching.blob import Blob
from lazylayer.logger import logger

__all__ = ["Opening", "RangeStore", "ask_cache"]

_Answer = TypeVar("_Answer")


def ask_cache(question: Callable[[], _Answer], otherwise: _Answer, what: str) -> _Answer:
    """Return what a cache answers, or `otherwise` if it raises; a cache never fails a read or a mount."""
    try:
        return question()
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises is a miss
        logger.warning("the cache failed to {what}: {error!r}", what=what, error=error)
        return otherwise


class RangeStore:
    """The cache of ranges. No method raises; an error of the cache is logged and counts as a miss."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def get(self, key: str) -> bytes | None:
        """Return the value under `key`, or None."""
        return ask_cache(lambda: self._cache.get(key), None, f"get {key}")

    def put(self, key: str, data: bytes) -> None:
        """Keep a value, if the cache takes it."""
        ask_cache(lambda: self._cache.put(key, data), None, f"put {key}")

    def remove(self, key: str) -> None:
        """Drop a value that proved bad."""
        ask_cache(lambda: self._cache.remove(key), None, f"remove {key}")

    def close(self) -> None:
        """Close the cache."""
        ask_cache(self._cache.close, None, "close")


class Opening:
    """One opening of a layer: the `OpenedBlob` of its format plugin, and what that read.

    Ranges come from the cache, or are fetched and kept there. The opening remembers which, so that it can
    distrust all of them when they turn out to be wrong. Safe to use from any thread.
    """

    def __init__(self, blob: Blob, ranges: RangeStore) -> None:
        self.seen = ByteRanges()
        """The bytes of the blob that were read. Look at it when the opening is over."""
        self._blob = blob
        self._scope = blob.scope
        self._size_key = "" if blob.size else f"{blob.digest}:size"
        self._ranges = ranges
        self._lock = threading.RLock()
        self._cached: set[str] = set()
        self._fetched: set[str] = set()

    @property
    def digest(self) -> Digest:
        """The digest of the blob."""
        return self._blob.digest

    @property
    def size(self) -> int:
        """Bytes in the blob. Asks the cache, and then the source, if no descriptor said so."""
        if not self._blob.size:
            data = self.recall(self._size_key)
            self._blob.size = int(data) if data and data.isdigit() and len(data) < 20 else 0
            if not self._blob.size:
                self._blob.size = self._blob.source().size
        return self._blob.size

    def confirm(self) -> None:
        """Keep the blob's size, once the layer has opened: a registry may lie about it."""
        if self._size_key and self._size_key not in self._cached:
            self.keep(self._size_key, b"%d" % self.size)

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes from `offset`; see `OpenedBlob.read`."""
        byte_range = ByteRange(offset, offset + size)
        if offset < 0 or size < 0 or byte_range.end > self.size:
            raise FormatError(f"blob {self.digest}: no {size} bytes at {offset}; the blob has {self.size}")
        key = f"{self.digest}:{byte_range.start}-{byte_range.end}"
        with self._lock:
            data = self.recall(key)
            if data is None or len(data) != size:
                data = b"".join(piece for _, piece in self._blob.stream([byte_range])) if size else b""
                self.keep(key, data)
            self.seen.add(*byte_range)
        return data

    def recall(self, key: str) -> bytes | None:
        """Return what the cache has under `key`, and remember that it came from there."""
        data = self._ranges.get(self._scope + key)
        if data is not None:
            self._cached.add(key)
        return data

    def keep(self, key: str, data: bytes) -> None:
        """Put fetched bytes into the cache."""
        self._ranges.put(self._scope + key, data)
        self._fetched.add(key)

    def distrust(self, error: Exception) -> bool:
        """Drop all that was read so far, since it proved wrong; return True if reading again may do better.

        What came from the cache is fetched the next time. If none did, the source is told, as by
        `BlobSource.doubt`.
        """
        with self._lock:
            cached, self._cached = self._cached, set()
            fetched, self._fetched = self._fetched, set()
        for key in cached | fetched:
            self._ranges.remove(self._scope + key)
        if self._size_key:
            self._blob.size = 0
        return bool(cached) or (bool(fetched) and self._blob.doubt(error))

    def doubt_size(self, error: Exception) -> bool:
        """Ask for the blob's size again, after its source failed; return True if it was wrong.

        A size that a descriptor promised is right. Nothing is dropped if the source does not answer.
        """
        known = self._blob.size
        if not self._size_key or not known:
            return False
        try:
            size = self._blob.source().size
            if size == known and self._blob.doubt(error):
                size = self._blob.source().size
        except LazylayerError:
            return False
        if size == known:
            return False
        self._ranges.remove(self._scope + self._size_key)
        self._cached.discard(self._size_key)
        self._blob.size = size
        return True
