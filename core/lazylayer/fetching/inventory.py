"""Know which members of a layer are available locally: the one place that does.

A member with a seal is kept twice: compressed, under its digest, for other processes and times, which verify it; and
inflated, which cannot be verified, for this process alone. Its name has the digest of the table of contents: another
table may inflate the same bytes to something else.

The lock is `Inventory._lock`; no cache is asked, and no callback made, while it is held.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from lazylayer.api.byteranges import ByteRange, ByteRanges
from lazylayer.api.chunks import Seal
from lazylayer.api.layers import LayerContents
from lazylayer.errors import FormatError
from lazylayer.fetching.blob import Blob
from lazylayer.fetching.chunkstore import ChunkStore
from lazylayer.logger import logger

__all__ = ["Inventory"]


class Inventory:
    """The chunks of one layer: which are here, and their bytes. Safe to use from any thread.

    A member counts as here once it was fetched, or found in the cache; until it could not be read any more.
    """

    def __init__(self, blob: Blob, contents: LayerContents, store: ChunkStore) -> None:
        self._blob, self._scope = blob.digest, blob.scope
        self._contents, self._table = contents, contents.chunks
        self._store = store
        self._lock = threading.Lock()
        self._held = bytearray(self._table.members)
        self._missing = self._table.members
        self._seen = ByteRanges()
        self.elsewhere = False
        """True if a mount has the whole layer elsewhere on this machine: nothing more is fetched of it."""
        self._waiting: dict[object, Callable[[], None]] = {}

    @property
    def complete(self) -> bool:
        """True if every member is here, or elsewhere on this machine."""
        return self.elsewhere or not self._missing

    @property
    def held_bytes(self) -> int:
        """Bytes of the chunks, inflated, that are here."""
        table = self._table
        return sum(
            table.place(chunk)[1] for member, held in enumerate(self._held) if held for chunk in table.chunks_of(member)
        )

    @property
    def seen_bytes(self) -> int:
        """Bytes of the blob that were fetched, or found in a cache, each counted once."""
        with self._lock:
            return self._seen.total

    def read(self, chunk: int, offset: int, size: int) -> bytes | None:
        """Return the verified bytes of a chunk from `offset`, at most `size`; None if it is not here."""
        seal = self._table.seal_over(chunk)
        if seal is not None:
            return self._read_sealed(self._table.member_of(chunk), seal, self._table[chunk].inner + offset, size)
        digest = self._table.digest(chunk)
        return self._store.read(self._key(chunk, digest), digest, self._table.place(chunk)[1], offset, size)

    def _read_sealed(self, member: int, seal: Seal, offset: int, size: int) -> bytes | None:
        key, (start, end) = self._sealed_key(member), self._table.member_range(member)
        data = self._store.read(key, b"", seal.size, offset, size)
        if data is not None:
            return data
        sealed = self._store.read(self._key(0, seal.digest), seal.digest, end - start, 0, end - start)
        if sealed is None:
            return None
        with self._store.budget.use(seal.size):
            try:
                plain = self._contents.inflate(sealed, seal.size, start)
            except FormatError:
                return None  # fetching it again fails with an error that tells more
            self._store.keep(key, plain)
        return plain[offset : offset + size]

    def keep_sealed(self, member: int, sealed: bytes, plain: bytes) -> None:
        """Keep a member whose compressed bytes were fetched and verified."""
        self._store.keep(self._key(0, hashlib.sha256(sealed).digest()), sealed)
        self._store.keep(self._sealed_key(member), plain)

    def keep(self, chunk: int, data: bytes) -> None:
        """Keep a chunk that was fetched and verified."""
        self._store.keep(self._key(chunk, self._table.digest(chunk)), data)

    def room(self) -> bool:
        """Return True if the cache could hold the whole layer, were it empty."""
        return self._store.room_for(self._table.total_size)

    def holds(self, member: int) -> bool:
        """Return True if the member was seen here. Asks nothing of the cache."""
        return bool(self._held[member])

    def has(self, member: int) -> bool:
        """Return True if the member is here, as far as can be told without reading it."""
        if self._held[member]:
            return True
        seal = self._table.seal_of(member)
        key, store = self._sealed_key(member), self._store
        if seal and not store.has(key, b"") and not store.has(self._key(0, seal.digest), seal.digest):
            return False
        for chunk in self._table.chunks_of(member) if not seal else ():
            digest = self._table.digest(chunk)
            if not self._store.has(self._key(chunk, digest), digest):
                return False
        self.add(member)
        self.announce()
        return True

    def look(self) -> None:
        """Count what the cache has already, from other processes too. Asks it about every missing member."""
        for member in range(self._table.members):
            self.has(member)

    def add(self, member: int) -> None:
        """Count a member as here. Call `announce` afterwards."""
        place = self._table.member_range(member)
        with self._lock:
            self._seen.add(*place)
            self._missing -= not self._held[member]
            self._held[member] = 1

    def discard(self, member: int) -> None:
        """Count a member as missing: the cache let go of it."""
        with self._lock:
            self._missing += self._held[member]
            self._held[member] = 0

    def add_bytes(self, byte_range: ByteRange) -> None:
        """Count bytes of the blob as seen that belong to no member, such as a table of contents."""
        with self._lock:
            self._seen.add(*byte_range)

    def mark_available(self) -> None:
        """Count the whole layer as available: a mount has all of it elsewhere on this machine."""
        self.elsewhere = True
        self.announce()

    def when_complete(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` once, when the layer is complete; at once if it is. Return a function that withdraws it.

        Called from the thread that fetched the last member. An error is logged.
        """
        token = object()
        with self._lock:
            self._waiting[token] = callback
        self.announce()

        def withdraw() -> None:
            with self._lock:
                self._waiting.pop(token, None)

        return withdraw

    def close(self) -> None:
        """Forget the callbacks that were not made."""
        with self._lock:
            self._waiting.clear()

    def announce(self) -> None:
        """Make the callbacks of `when_complete` that were not made, if the layer is complete."""
        if not self.complete:
            return
        with self._lock:
            self._seen.add(0, self._table.blob_size)
            callbacks, self._waiting = self._waiting, {}
        for callback in callbacks.values():
            try:
                callback()
            except Exception as error:  # noqa: BLE001 - the reader whose fetch completed the layer is not to blame
                logger.warning("{digest} is complete; a callback failed: {error!r}", digest=self._blob, error=error)

    def _sealed_key(self, member: int) -> str:
        return f"{self._scope}{self._contents.toc_digest}:member{member}"

    def _key(self, chunk: int, digest: bytes) -> str:
        return self._scope + (f"sha256:{digest.hex()}" if digest else f"{self._blob}:chunk{chunk}")
