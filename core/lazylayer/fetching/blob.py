"""Read one remote blob, and count what is asked of its source.

The lock is `Blob._lock`; no request is made while it is held. `Blob._opening` is held while the source is opened.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import Digest
from lazylayer.api.sources import BlobSource
from lazylayer.errors import UnavailableError

__all__ = ["Blob"]


class Blob:
    """One blob of an image. Safe to use from any thread.

    The source is opened when bytes are first needed that no cache holds, so a layer whose table of contents is
    cached opens while its registry is away. `open_source` is called once at a time, until it succeeds; it
    raises what resolvers raise. Keys in caches begin with `scope`.
    """

    def __init__(self, open_source: Callable[[], BlobSource], digest: Digest, size: int, scope: str = "") -> None:
        self.digest = digest
        self.scope = scope
        self.size = size
        """Bytes in the blob; 0 while that is unknown."""
        self.last_contact = float("-inf")
        """When the source last answered, in seconds of `time.monotonic`."""
        self.requests = 0
        """Requests made to the source."""
        self.network_bytes = 0
        """Bytes that the source delivered."""
        self._open_source = open_source
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._source: BlobSource | None = None
        self._closed = False

    def source(self) -> BlobSource:
        """Return the source, opened now if it was not. Raises what `open_source` raises."""
        with self._opening:
            if self._source is None:
                self._source = self._open_source()
                self.last_contact = time.monotonic()
                if self._closed:
                    self._source.close()
            return self._source

    def stream(self, ranges: Sequence[ByteRange]) -> Generator[tuple[int, bytes], None, None]:
        """Fetch `ranges` (sorted, apart) and yield (offset, piece) as bytes arrive.

        Closing the iterator ends the request. Raises what `BlobSource.fetch` raises, and UnavailableError if
        the source ends early or sends bytes outside the ranges.
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
                if self._closed:
                    raise UnavailableError(f"blob {self.digest}: closed while it was fetched")
                if not pending or offset != at or at + len(piece) > pending[-1].end:
                    raise UnavailableError(f"blob {self.digest}: the source sent bytes that were not asked for")
                at += len(piece)
                with self._lock:
                    self.network_bytes += len(piece)
                    self.last_contact = time.monotonic()
                yield offset, piece
        finally:
            getattr(pieces, "close", lambda: None)()
        if len(pending) > 1 or at != pending[-1].end:
            raise UnavailableError(f"blob {self.digest}: the source ended after byte {at} of {ranges[-1].end}")

    def check(self) -> None:
        """Return if the source can be read now; raise what `BlobSource.check` raises."""
        self.source().check()
        self.last_contact = time.monotonic()

    def doubt(self, error: Exception) -> bool:
        """Tell the source that it served wrong bytes; return True if asking again may do better."""
        return self._source is not None and self._source.doubt(error)

    def describe(self) -> str:
        """Return where the bytes come from, for people; empty while no request was made."""
        return self._source.describe() if self._source is not None else ""

    def close(self) -> None:
        """Close the source, as soon as it is open if it is being opened. Does not wait for that."""
        self._closed = True
        if self._source is not None:
            self._source.close()
