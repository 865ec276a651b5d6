"""Read ranges of a blob while its layer is opened, and keep them in the cache of ranges.

`Opening._lock` is held while a range is read, so that readers of the same range share one request.
"""

from __future__ import annotations

import threading

from lazylayer.api.byteranges import ByteRange, ByteRanges
from lazylayer.api.cache import Cache
from lazylayer.api.oci import Digest
from lazylayer.errors import FormatError, LazylayerError
from lazylayer.fetching.blob import Blob

__all__ = ["Opening"]


class _NoCache(Cache):
    def get(self, key: str) -> bytes | None:
        del key
        return None

    def put(self, key: str, data: bytes) -> None:
        del key, data


class Opening:
    """One opening of a layer: the `OpenedBlob` of its format plugin, and what that read.

    Ranges come from the cache, or are fetched and kept there. The opening remembers which, so that it can
    distrust all of them when they turn out to be wrong. Without `ranges`, a cache that never raises, nothing is kept.
    Safe to use from any thread.
    """

    def __init__(self, blob: Blob, ranges: Cache | None = None) -> None:
        self.seen = ByteRanges()
        """The bytes of the blob that were read. Look at it when the opening is over."""
        self._blob = blob
        self._scope = blob.scope
        self._size_key = "" if blob.size else f"{blob.digest}:size"
        self._ranges = ranges or _NoCache()
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
