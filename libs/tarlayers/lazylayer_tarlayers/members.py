"""Compress the members of a layer on all cores and write them in order.

A *member* is a stretch of a tar archive that is compressed by itself, so that it can be inflated by
itself: see `lazylayer.api.chunks`. The caller decides what a member holds, and each is compressed on its own,
so the result does not depend on the number of threads.

`MemberWriter` is used by one thread, which reads and writes, while its own threads compress and hash. Small
members go to a thread in batches, since handing over one costs more than compressing it. The bytes in flight
are bounded.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import IO, NamedTuple, Self

from lazylayer.api.oci import Digest
from lazylayer_tarlayers.toc import TocEntry

__all__ = ["Compress", "Member", "MemberWriter"]

Compress = Callable[[bytes | memoryview], bytes | bytearray]
"""Compresses bytes to one member; thread-safe."""

_BATCH = 1024 * 1024
"""Bytes of small members that go to a thread together."""
_IN_FLIGHT = 16 * 1024 * 1024
"""Uncompressed bytes in flight per thread, unless a single member is larger."""


class Member:
    """A stretch of the archive: its bytes, in pieces, and the chunks of files in it."""

    __slots__ = ("chunks", "pieces", "size")

    def __init__(self) -> None:
        self.pieces: list[bytes | memoryview] = []
        self.size = 0
        self.chunks: list[tuple[TocEntry, int, int]] = []
        """Each chunk: its entry, where it starts in the member, and its size in bytes."""

    def append(self, piece: bytes | memoryview) -> None:
        """Add bytes that belong to no chunk."""
        self.pieces.append(piece)
        self.size += len(piece)

    def append_chunk(self, entry: TocEntry, data: bytes | memoryview) -> None:
        """Add a chunk. The writer completes its entry with offset and digest."""
        entry.inner_offset = self.size
        self.chunks.append((entry, self.size, len(data)))
        self.append(data)


class _Batch(NamedTuple):
    """Members that a thread compresses, and their size uncompressed.

    `compressed` gives their compressed bytes and each member's share of them.
    """

    members: list[Member]
    size: int
    compressed: Future[tuple[bytes, list[int]]]
    hashed: Future[None]


class MemberWriter:
    """Writes members to `destination`, compressed by `compress`.

    Use it as a context manager: at the end of the block nothing is in flight any more. `jobs` is how
    many threads compress, 0 for one for each core.
    """

    def __init__(self, destination: IO[bytes], compress: Compress, jobs: int = 0) -> None:
        self.size = 0
        """Bytes written so far."""
        self.plain_size = 0
        """Bytes of the archive so far, uncompressed."""
        self._destination = destination
        self._compress = compress
        threads = jobs or len(os.sched_getaffinity(0))
        self._threads = ThreadPoolExecutor(threads, "lazylayer-compress")
        self._hasher = ThreadPoolExecutor(1, "lazylayer-hash")
        self._limit = _IN_FLIGHT * min(threads, 8)
        self._hash = hashlib.sha256()
        self._plain_hash = hashlib.sha256()
        self._batch: list[Member] = []
        self._batch_size = 0
        self._waiting: deque[_Batch] = deque()
        self._in_flight = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._hasher.shutdown(cancel_futures=True)

    @property
    def digest(self) -> Digest:
        """The digest of what was written."""
        return Digest(f"sha256:{self._hash.hexdigest()}")

    @property
    def plain_digest(self) -> Digest:
        """The digest of the archive, uncompressed: the layer's diff ID, once all is written."""
        return Digest(f"sha256:{self._plain_hash.hexdigest()}")

    def add(self, member: Member) -> None:
        """Take a member. By the time `flush` returns, it is written and its entries are complete."""
        self.plain_size += member.size
        self._batch.append(member)
        self._batch_size += member.size
        if self._batch_size >= _BATCH:
            self._send()
        while self._waiting and (self._in_flight > self._limit or self._waiting[0].compressed.done()):
            self._write_oldest()

    def flush(self) -> None:
        """Wait until all members are written."""
        self._send()
        while self._waiting:
            self._write_oldest()

    def write(self, data: bytes) -> None:
        """Write bytes of the layer that do not belong to the archive, behind the flushed members."""
        self._destination.write(data)
        self._hash.update(data)
        self.size += len(data)

    def _send(self) -> None:
        if not self._batch:
            return
        data = b"".join([piece for member in self._batch for piece in member.pieces])
        for member in self._batch:
            member.pieces.clear()
        hashed = self._hasher.submit(self._plain_hash.update, data)
        compressed = self._threads.submit(self._work, self._batch, data)
        self._waiting.append(_Batch(self._batch, self._batch_size, compressed, hashed))
        self._in_flight += self._batch_size
        self._batch, self._batch_size = [], 0

    def _work(self, members: Sequence[Member], data: bytes) -> tuple[bytes, list[int]]:
        """Compress the members in `data` and set the digests of their chunks. Runs in a thread."""
        results, at = [], 0
        view = memoryview(data)
        for member in members:
            part = view[at : at + member.size]
            at += member.size
            for entry, start, size in member.chunks:
                entry.chunk_digest = f"sha256:{hashlib.sha256(part[start : start + size]).hexdigest()}"
            results.append(self._compress(part))
        return b"".join(results), [len(result) for result in results]

    def _write_oldest(self) -> None:
        batch = self._waiting.popleft()
        data, sizes = batch.compressed.result()
        batch.hashed.result()
        self._in_flight -= batch.size
        offset = self.size
        for member, size in zip(batch.members, sizes, strict=True):
            for entry, _, _ in member.chunks:
                entry.offset = offset
            offset += size
        self.write(data)
