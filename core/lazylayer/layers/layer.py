"""One layer of an image: its tree, and verified reads of its files.

A layer is opened once and shared by all mounts that show it. It fetches what is read; what is fetched ahead,
and in the background, the `Prefetcher` decides.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.events import EventKind, LayerState, StateEvent
from lazylayer.api.layers import LayerContents
from lazylayer.api.mounting import VirtualDirectory
from lazylayer.api.oci import Descriptor, Reference
from lazylayer.api.text import one_line
from lazylayer.api.tree import Entry
from lazylayer.errors import LayerError, LazylayerError
from lazylayer.fetching.fetcher import Fetcher
from lazylayer.fetching.scheduling import Turn
from lazylayer.logger import logger

__all__ = ["Layer"]


class Layer:
    """An opened layer. Safe to use from any thread.

    A `lazylayer.api.opened.OpenedLayer`, and a `lazylayer.api.mounting.MountableTree`: the layer by itself, as
    overlayfs wants a lower directory. `identity` is its format, and the digest of its table of contents. `report` is
    told what changes; see `lazylayer.api.events`.
    """

    def __init__(
        self,
        reference: Reference,
        descriptor: Descriptor,
        contents: LayerContents,
        fetcher: Fetcher,
        report: Callable[[StateEvent], None],
    ) -> None:
        self.reference = reference
        self.descriptor = descriptor
        self.digest = descriptor.digest
        self.contents = contents
        self.tree = contents.tree
        self.source = f"{reference.host or reference.scheme}/{self.digest[7:19]}"
        self.identity = f"{fetcher.blob.scope}{contents.format} {contents.toc_digest}"
        self.virtual: Mapping[bytes, VirtualDirectory] = {}
        self.closed = False
        self.blob = fetcher.blob
        self.inventory = fetcher.inventory
        self.windows = fetcher.windows
        self._table = contents.chunks
        self._fetcher = fetcher
        self._read_chunk, self._read_timeout = fetcher.read, fetcher.read_timeout
        self._report = report
        self._lock = threading.Lock()
        self._error = ""
        if not self.complete:  # a layer without data has nothing to tell
            self.inventory.when_complete(lambda: self.tell("completed"))

    @property
    def complete(self) -> bool:
        """True if every chunk was seen here, or is elsewhere on this machine."""
        return self.inventory.complete

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """Return the verified bytes of a file from `offset`, at most `size`; fewer only at its end.

        Raises LayerError or ResolveError, which has been reported by then.
        """
        end = min(offset + size, entry.size)
        if offset >= end or offset < 0:
            return b""
        try:
            return self._read(entry, offset, end)
        except LazylayerError as error:
            self.fail(str(error))
            raise
        except Exception as error:
            self.fail(f"{type(error).__name__}: {error}")
            raise LayerError(f"layer {self.digest}: {type(error).__name__}: {error}") from error

    def _read(self, entry: Entry, offset: int, end: int) -> bytes:
        if not entry.chunk_count:
            raise LayerError(f"layer {self.digest}: a file of {entry.size} bytes has no data")
        chunk = self._table.find(entry.first_chunk, entry.chunk_count, offset)
        last = entry.first_chunk + entry.chunk_count - 1
        parts = []
        deadline = time.monotonic() + self._read_timeout
        while offset < end:
            start, length = self._table.place(chunk)
            wanted = min(end, start + length) - offset
            part = self._read_chunk(chunk, offset - start, wanted, deadline, last if start else None)
            if len(part) != wanted or wanted <= 0:
                raise LayerError(f"layer {self.digest}: {len(part)} bytes came where {wanted} should be")
            parts.append(part)
            offset += wanted
            chunk += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def fetch(self, entries: Iterable[Entry]) -> None:
        """Fetch the missing chunks of these files; see `OpenedLayer.fetch`."""
        self._fetcher.fetch(
            chunk for each in entries for chunk in range(each.first_chunk, each.first_chunk + each.chunk_count)
        )

    def prefetch(self, byte_range: ByteRange) -> None:
        """Fetch all that lies whole in a range of the blob. Raises LayerError or ResolveError."""
        self._fetcher.prefetch(byte_range)

    def fetch_some(self, turn: Turn, request_size: int) -> bool:
        """Do one piece of background work, as `BackgroundWorkers` wants it; return True if there is more."""
        if self.inventory.elsewhere or self.closed:
            return False
        if not self.inventory.room():
            logger.info("{digest} is not fetched in the background: the cache is smaller than it", digest=self.digest)
            return False
        try:
            return self._fetcher.fetch_some(turn, request_size)
        except LazylayerError as error:
            self.fail(f"background fetch: {error}")
            raise

    def state(self) -> LayerState:
        """Return how much of the layer is here, and its last error."""
        blob, seen = self.blob, self.inventory.seen_bytes
        return LayerState(self.digest, blob.size, seen, self._error, blob.requests, blob.network_bytes, blob.describe())

    def when_complete(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` once, when the layer is complete; see `MountableTree.when_complete`."""
        return self.inventory.when_complete(callback)

    def fail(self, error: str) -> None:
        """Keep an error as the layer's last one, and report it if it is new."""
        error = one_line(error)
        with self._lock:
            known, self._error = self._error, error
        if known != error and not self.closed:
            logger.warning("layer {digest}: {error}", digest=self.digest, error=error)
            self.tell("failed", error)

    def tell(self, kind: EventKind, error: str = "") -> None:
        """Report a change of the layer."""
        self._report(StateEvent(kind, str(self.reference), (self.state(),), error=error))

    def close(self) -> None:
        """Close the blob once what readers got is cached, and report that the layer is not used any more."""
        self.closed = True
        self._fetcher.finish()
        self.tell("closed")
        self.blob.close()
