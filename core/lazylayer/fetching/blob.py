"""Random access to one remote blob: shared reads, a cache of ranges, and a count of what was fetched.

A `Blob` opens its source when bytes are first needed that no cache holds: a layer whose table of
contents is cached can be opened while its registry is away.

Its lock is `Blob._lock`; no request is made while it is held.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future

from lazylayer.api.byteranges import ByteRange, ByteRanges
from lazylayer.api.cache import Cache
from lazylayer.api.oci import Digest
from lazylayer.api.sources import BlobSource
from lazylayer.errors import FormatError, UnavailableError

__all__ = ["Blob"]


class Blob:
    """One blob of an image. Safe to use from any thread.

    `open_source` is called at most once at a time, until it succeeds; it raises what resolvers
    raise. `size` may be 0 for "not known yet". `ranges` keeps what `read` fetched.
    """

    def __init__(self, open_source: Callable[[], BlobSource], digest: Digest, size: int, ranges: Cache) -> None:
        self.digest = digest
        self.last_contact = float("-inf")
        """When the source last answered, in the seconds of `time.monotonic`."""
        self.requests = 0
        """How often bytes were asked of the source."""
        self.network_bytes = 0
        """How many bytes the source delivered."""
        self._open_source = open_source
        self._size = size
        self._ranges = ranges
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._source: BlobSource | None = None
        self._reading: dict[ByteRange, Future[bytes]] = {}
        self._present = ByteRanges()
        self._from_cache: set[str] = set()
        self._fetched: set[str] = set()

    @property
    def size(self) -> int:
        """Bytes in the blob. Asks the cache, and then the source, when nobody said so before."""
        if not self._size:
            self._size = self._cached_size() or self.source().size
            self._ranges.put(f"{self.digest}:size", b"%d" % self._size)
        return self._size

    @property
    def fetched(self) -> int:
        """How many different bytes of the blob are here: fetched, or found in a cache."""
        with self._lock:
            return self._present.total

    def source(self) -> BlobSource:
        """The source, opened now if it was not. Raises what `open_source` raises."""
        with self._opening:
            if self._source is None:
                self._source = self._open_source()
                self.last_contact = time.monotonic()
            return self._source

    def read(self, offset: int, size: int) -> bytes:
        """The `size` bytes from `offset`; from the cache of ranges, or fetched and kept there.

        The bytes are not verified: the caller is. Readers of the same range share one request.
        Raises FormatError for a range outside the blob, and what `BlobSource.fetch` raises.
        """
        byte_range = ByteRange(offset, offset + size)
        if offset < 0 or size < 0 or byte_range.end > self.size:
            raise FormatError(f"blob {self.digest} has {self.size} bytes; {size} at {offset} were asked for")
        with self._lock:
            future = self._reading.get(byte_range)
            if mine := future is None:
                future = self._reading[byte_range] = Future()
        assert future is not None
        if mine:
            try:
                future.set_result(self._read(byte_range))
            except BaseException as error:
                future.set_exception(error)
                raise
            finally:
                with self._lock:
                    del self._reading[byte_range]
        return future.result()

    def stream(self, ranges: Sequence[ByteRange]) -> Generator[tuple[int, bytes], None, None]:
        """Fetches `ranges` (sorted, apart), yielding (offset, piece) as bytes arrive; not cached.

        Closing the iterator ends the request. Raises what `BlobSource.fetch` raises, also when the
        source ends early or yields what was not asked for.
        """
        with self._lock:
            self.requests += 1
        at, pending = ranges[0].start, list(reversed(ranges))
        pieces = self.source().fetch(ranges)
        try:
            for offset, piece in pieces:
                if pending and at == pending[-1].end:
                    pending.pop()
                    at = pending[-1].start if pending else -1
                if not pending or offset != at or at + len(piece) > pending[-1].end:
                    raise UnavailableError(f"blob {self.digest}: the source sent bytes that were not asked for")
                at += len(piece)
                self._account(offset, len(piece))
                yield offset, piece
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()
        if len(pending) > 1 or at != pending[-1].end:
            raise UnavailableError(f"blob {self.digest}: the source ended after byte {at} of {ranges[-1].end}")

    def check(self) -> None:
        """Returns if the source can be read now; raises what `BlobSource.check` raises."""
        self.source().check()
        self.last_contact = time.monotonic()

    def mark_present(self, start: int, end: int) -> None:
        """Counts bytes as being here which a cache of chunks held already."""
        with self._lock:
            self._present.add(start, end)

    def forget_ranges(self, error: Exception) -> bool:
        """Drops the ranges that `read` has returned, since they proved bad; whether others may be had.

        Those that came from the cache are fetched the next time. If none did, their source is told.
        """
        with self._lock:
            cached, self._from_cache = self._from_cache, set()
            fetched, self._fetched = self._fetched, set()
        for key in cached | fetched:
            self._ranges.remove(key)
        return bool(cached) or (bool(fetched) and self.doubt(error))

    def doubt(self, error: Exception) -> bool:
        """Tells the source that it served wrong bytes; whether asking again may do better. See `BlobSource.doubt`."""
        return self._source is not None and self._source.doubt(error)

    def describe(self) -> str:
        """Where the bytes come from, for people, or an empty string while nobody asked."""
        return self._source.describe() if self._source is not None else ""

    def close(self) -> None:
        """Closes the source."""
        with self._opening:
            if self._source is not None:
                self._source.close()

    def _read(self, byte_range: ByteRange) -> bytes:
        key = f"{self.digest}:{byte_range.start}-{byte_range.end}"
        data = self._ranges.get(key)
        if data is not None and len(data) == byte_range.size:
            with self._lock:
                self._from_cache.add(key)
                self._present.add(*byte_range)
            return data
        data = b"".join(piece for _, piece in self.stream([byte_range])) if byte_range.size else b""
        self._ranges.put(key, data)
        with self._lock:
            self._fetched.add(key)
        return data

    def _cached_size(self) -> int:
        data = self._ranges.get(f"{self.digest}:size")
        return int(data) if data and data.isdigit() and len(data) < 20 else 0

    def _account(self, offset: int, size: int) -> None:
        with self._lock:
            self._present.add(offset, offset + size)
            self.network_bytes += size
            self.last_contact = time.monotonic()
