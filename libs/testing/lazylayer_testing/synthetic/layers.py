"""Layers and blob sources in memory: no registry, no archive, no cache on disk."""

from __future__ import annotations

import gzip
import hashlib
import threading
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.cache import Cache
from lazylayer.api.chunks import ChunkTable
from lazylayer.api.layers import LayerContents
from lazylayer.api.oci import Digest, Reference, sha256_digest
from lazylayer.api.sources import BlobSource
from lazylayer.api.tree import Entry
from lazylayer.errors import FormatError, UnavailableError
from lazylayer.fetching import Blob, Opening
from lazylayer.layers import Companions
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.registry import make_manager
from lazylayer_tarlayers.treebuilder import Landmarks, TreeBuilder

__all__ = ["DictCache", "MemorySource", "SyntheticLayer", "companions_of", "inflate", "make_blob"]


class DictCache(Cache):
    """A cache without a limit. Tests may read and damage its `values`."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        """Return the value of `key`, or None."""
        return self.values.get(key)

    def put(self, key: str, data: bytes) -> None:
        """Keep a copy of `data`."""
        self.values[key] = bytes(data)

    def remove(self, key: str) -> None:
        """Forget a value, if there is one."""
        self.values.pop(key, None)


class MemorySource(BlobSource):
    """Serves bytes from memory in pieces of `piece` bytes, and records each request in `asked`.

    `gate` holds up all reads while it is cleared. `fail(ranges)` returns the error of a request, or None.
    """

    def __init__(self, data: bytes, piece: int = 4096) -> None:
        self.data = data
        self.size = len(data)
        self.piece = piece
        self.asked: list[list[ByteRange]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fail: Callable[[list[ByteRange]], Exception | None] = lambda _: None
        self.checks = 0
        self.on_piece: Callable[[int], None] = lambda _: None
        self.closed = False

    def fetch(self, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        """Record the ranges, fail if told to, and yield their bytes in pieces while the gate is open."""
        self.asked.append(list(ranges))
        error = self.fail(list(ranges))
        if error is not None:
            raise error
        for start, end in ranges:
            for at in range(start, end, self.piece):
                if not self.gate.wait(20):
                    raise UnavailableError("the gate was never opened")
                self.on_piece(at)
                yield at, self.data[at : min(at + self.piece, end)]

    def check(self) -> None:
        """Count the call, and fail if told to."""
        self.checks += 1
        error = self.fail([])
        if error is not None:
            raise error

    def close(self) -> None:
        """Record that the source was closed."""
        self.closed = True

    @property
    def asked_bytes(self) -> int:
        """Bytes of all ranges that were asked for."""
        return sum(byte_range.size for ranges in self.asked for byte_range in ranges)


def make_blob(data: bytes, source: BlobSource | None = None, ranges: Cache | None = None) -> Opening:
    """Return the blob that a format is given for a layer of these bytes, in memory unless there is a source."""
    made = source or MemorySource(data)
    return Opening(Blob(lambda: made, sha256_digest(data), len(data)), ranges or DictCache())


def companions_of(blob: bytes, hooks: Hooks | None = None, reference: Reference | None = None) -> Companions:
    """Return the companions that a format is given for a layer of `reference`; they ask the plugins of `hooks`."""
    image = reference or Reference("image", host="registry.test", tag="1")
    return Companions(hooks or Hooks(make_manager()), image, make_blob(blob))


def inflate(data: bytes | memoryview, size: int, offset: int = 0) -> bytes:
    """Return the first `size` bytes of the gzip member at `offset`. Raises FormatError."""
    try:
        plain = zlib.decompressobj(wbits=31).decompress(data, size)
    except zlib.error as error:
        raise FormatError(str(error)) from error
    if len(plain) < size:
        raise FormatError(f"the member at {offset} holds {len(plain)} bytes, not {size}")
    return plain


class SyntheticLayer:
    """A layer of these files, each cut into chunks of `chunk_size` bytes, each chunk a gzip member.

    With `pack`, chunks of consecutive files share members of up to `pack` inflated bytes. `links`
    are symbolic links; files in `programs` are executable. `data` is the blob, `contents` its index.
    """

    def __init__(
        self,
        files: dict[bytes, bytes],
        chunk_size: int = 1000,
        pack: int = 0,
        digests: bool = True,
        links: Mapping[bytes, bytes] | None = None,
        programs: Collection[bytes] = (),
    ) -> None:
        self.files = files
        blob = bytearray(b"header--")
        places: list[tuple[bytes, int, bytes, int, int]] = []
        waiting: list[tuple[bytes, int, bytes]] = []

        def flush() -> None:
            inner = 0
            start = len(blob)
            for name, file_offset, data in waiting:
                places.append((name, file_offset, data, start, inner))
                inner += len(data)
            if waiting:
                blob.extend(gzip.compress(b"".join(data for _, _, data in waiting), mtime=0))
            waiting.clear()

        for name, content in files.items():
            for at in range(0, len(content), chunk_size):
                waiting.append((name, at, content[at : at + chunk_size]))
                if sum(len(data) for *_, data in waiting) >= max(pack, 1):
                    flush()
        flush()
        self.data_end = len(blob)
        blob.extend(b"--the table of contents would be here")
        self.data = bytes(blob)
        self.digest: Digest = sha256_digest(self.data)
        self.chunks = ChunkTable(len(self.data))
        builder = TreeBuilder(Landmarks(b".prefetch.landmark", b".no.prefetch.landmark"))
        self.entries: dict[bytes, Entry] = {}
        for name, content in files.items():
            entry = Entry(
                mode=0o100755 if name in programs else 0o100644, size=len(content), first_chunk=len(self.chunks)
            )
            for owner, file_offset, data, offset, inner in places:
                if owner == name:
                    self.chunks.append(
                        offset=offset,
                        inner=inner,
                        file_offset=file_offset,
                        size=len(data),
                        digest=hashlib.sha256(data).digest() if digests else b"",
                    )
                    entry.chunk_count += 1
            builder.add(name, entry)
            self.entries[name] = entry
        for name, target in (links or {}).items():
            builder.add(name, Entry(mode=0o120777, size=len(target), target=target))
        self.chunks.finish(self.data_end)
        self.contents = LayerContents("synthetic", builder.finish(), self.chunks, sha256_digest(b"toc"), inflate)
