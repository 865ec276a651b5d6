"""One layer of an image: its tree, and verified reads of its files.

A layer is opened once and shared by all mounts that show it. It fetches what is read, what its
prefetch plan asks for, and the rest when the machine is idle.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from loguru import logger

from lazylayer.api.events import EventKind, LayerState, StateEvent
from lazylayer.api.layers import LayerContents, PrefetchPlan
from lazylayer.api.mounting import VirtualDirectory
from lazylayer.api.oci import Descriptor, Digest, Reference
from lazylayer.api.settings import FetchSettings
from lazylayer.api.tree import Entry, Tree
from lazylayer.errors import LayerError, LazylayerError
from lazylayer.fetching.blob import Blob
from lazylayer.fetching.chunkstore import ChunkStore
from lazylayer.fetching.fetcher import Fetcher
from lazylayer.fetching.locality import Siblings
from lazylayer.fetching.scheduling import Scheduler, Turn

__all__ = ["Layer"]


class Layer:
    """An opened layer. Safe to use from any thread.

    Satisfies `lazylayer.api.mounting.MountableTree`: the layer by itself, as overlayfs wants a lower
    directory. `report` is told what changes; see `lazylayer.api.events`.
    """

    def __init__(
        self,
        reference: Reference,
        descriptor: Descriptor,
        blob: Blob,
        contents: LayerContents,
        store: ChunkStore,
        scheduler: Scheduler,
        settings: FetchSettings,
        report: Callable[[StateEvent], None],
    ) -> None:
        self.reference = reference
        self.descriptor = descriptor
        self.blob = blob
        self.contents = contents
        self.virtual: Mapping[bytes, VirtualDirectory] = {}
        self._table = contents.chunks
        self._store = store
        self._report = report
        self._fetcher = Fetcher(
            blob, contents, store, scheduler, settings, self._completed, self._program_read, self._seek_siblings
        )
        self._program_watchers: dict[str, Callable[[bytes, Entry], None]] = {}
        self._lock = threading.Lock()
        self._error = ""
        self._told_complete = False
        self._elsewhere = False
        self._prefetch_started = False
        self._prefetched = threading.Event()

    @property
    def digest(self) -> Digest:
        """The digest of the layer's blob."""
        return self.descriptor.digest

    @property
    def tree(self) -> Tree:
        """The layer's own entries, with whiteouts and opaque directories."""
        return self.contents.tree

    @property
    def source(self) -> str:
        """What a mount of the layer is called in /proc/self/mounts."""
        return f"{self.reference.host or self.reference.scheme}/{self.digest[7:19]}"

    @property
    def identity(self) -> str:
        """Names the layer's tree: it is what its format makes of its table of contents."""
        return f"{self.contents.format} {self.contents.toc_digest}"

    @property
    def complete(self) -> bool:
        """Whether every chunk was seen here, or is elsewhere on this machine."""
        return self._elsewhere or self._fetcher.complete

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """The verified bytes of a file from `offset`, at most `size`; fewer only at its end.

        Raises LayerError or ResolveError, which has been reported by then.
        """
        end = min(offset + size, entry.size)
        if offset >= end or offset < 0:
            return b""
        try:
            return self._read(entry, offset, end)
        except LazylayerError as error:
            self._failed(str(error))
            raise
        except Exception as error:
            self._failed(f"{type(error).__name__}: {error}")
            raise LayerError(f"layer {self.digest}: {type(error).__name__}: {error}") from error

    def _read(self, entry: Entry, offset: int, end: int) -> bytes:
        if not entry.chunk_count:
            raise LayerError(f"layer {self.digest}: a file of {entry.size} bytes has no data")
        chunk = self._table.find(entry.first_chunk, entry.chunk_count, offset)
        last = entry.first_chunk + entry.chunk_count - 1
        parts = []
        while offset < end:
            start, length = self._table.place(chunk)
            wanted = min(end, start + length) - offset
            part = self._fetcher.read(chunk, offset - start, wanted, last if start else None)
            if len(part) != wanted or wanted <= 0:
                raise LayerError(f"layer {self.digest}: {len(part)} bytes came where {wanted} should be")
            parts.append(part)
            offset += wanted
            chunk += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def state(self) -> LayerState:
        """How much of the layer is here, and its last error."""
        blob = self.blob
        return LayerState(
            self.digest, blob.size, blob.fetched, self._error, blob.requests, blob.network_bytes, blob.describe()
        )

    def held_bytes(self) -> int:
        """Bytes of chunks, inflated, that were seen in the cache or fetched into it."""
        return self._fetcher.held_bytes

    # --- before it is read -----------------------------------------------------------------------

    def prefetch(self, plan: Callable[[], PrefetchPlan | None]) -> None:
        """Carries out the prefetch plan that `plan` returns, once in the life of the layer.

        Returns when it is done; a second call returns at once. Errors are reported, not raised.
        """
        with self._lock:
            if self._prefetch_started:
                return
            self._prefetch_started = True
        try:
            wanted = plan()
            for byte_range in wanted.ranges if wanted is not None else ():
                self._fetcher.prefetch(byte_range)
            if wanted is not None and wanted.ranges:
                logger.debug("prefetched {digest}: {reason}", digest=self.digest, reason=wanted.reason)
                self._tell("prefetched")
        except LazylayerError as error:
            self._failed(f"prefetch: {error}")
        finally:
            self._prefetched.set()

    def fetch(self, entries: Iterable[Entry]) -> None:
        """Fetches what of these files is not here, with few requests. Raises LayerError or ResolveError.

        What somebody else fetches at this moment is not waited for.
        """
        self._fetcher.fetch(
            chunk for each in entries for chunk in range(each.first_chunk, each.first_chunk + each.chunk_count)
        )

    def watch_programs(self, owner: str, watcher: Callable[[bytes, Entry], None]) -> None:
        """From now on tells `watcher` of programs, libraries and Python modules whose start a reader had fetched.

        It is called with path and entry of each, in a thread of its own, and may fetch what such a
        program will ask for next. What is found in a cache is not told of. `owner` is the name of the
        plugin that watches; its watcher of before is told no more.
        """
        with self._lock:
            self._program_watchers[owner] = watcher

    def find_siblings(self) -> None:
        """Finds out now what is read together, rather than after the first miss. Costs a microsecond for each file."""
        self._fetcher.siblings()

    def need_nothing(self) -> None:
        """Notes that a mount has all of the layer elsewhere, so that nothing is fetched of it without being read."""
        self._elsewhere = True
        self._completed()

    def wait_prefetched(self, timeout: float) -> bool:
        """Waits, at most `timeout` seconds, for a prefetch that was started; whether it is over."""
        return not self._prefetch_started or self._prefetched.wait(timeout)

    def fetch_some(self, turn: Turn, request_size: int) -> bool:
        """One piece of background work, as `BackgroundWorkers` wants it: whether there is more to do."""
        if self._elsewhere:
            return False
        if not self._store.room_for(self._table.total_size):
            logger.info("{digest} is not fetched in the background: the cache is smaller than it", digest=self.digest)
            return False
        try:
            return self._fetcher.fetch_some(turn, request_size)
        except LazylayerError as error:
            self._failed(f"background fetch: {error}")
            raise

    # --- what happens ----------------------------------------------------------------------------

    def _seek_siblings(self) -> Siblings:
        return Siblings(self.tree, self._table)

    def _completed(self) -> None:
        with self._lock:
            if self._told_complete:
                return
            self._told_complete = True
        self.blob.mark_present(0, self.blob.size)
        self._tell("completed")

    def _program_read(self, path: bytes, entry: Entry) -> None:
        with self._lock:
            watchers = list(self._program_watchers.values())
        for watcher in watchers:
            try:
                watcher(path, entry)
            except Exception as error:  # noqa: BLE001 - the program is there all the same
                logger.debug("layer {digest}: a watcher failed: {error!r}", digest=self.digest, error=error)

    def _failed(self, error: str) -> None:
        with self._lock:
            known, self._error = self._error, error
        if known != error:
            logger.warning("layer {digest}: {error}", digest=self.digest, error=error)
            self._tell("failed", error)

    def _tell(self, kind: EventKind, error: str = "") -> None:
        self._report(StateEvent(kind, str(self.reference), (self.state(),), error=error))

    def close(self) -> None:
        """Closes the blob, forgets who watches, and says that the layer is not used any more."""
        with self._lock:
            self._program_watchers.clear()
        self._fetcher.finish()
        self._tell("closed")
        self.blob.close()
