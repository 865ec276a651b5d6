"""The chunk map of a layer: the bytes of the blob that hold each piece of each file.

A file's data is a run of chunks. A chunk lies in a *member*, a compressed stream that starts at
`offset` in the blob and can be inflated by itself (a gzip member, a zstd frame); `inner` is where
the chunk begins in what the member inflates to. Most members hold one chunk.

Most formats have a digest of each chunk. One that has digests of compressed bytes instead *seals* its members: where a
member ends, and the sha256 of exactly those bytes, which are checked before they are inflated.

The table keeps columns of numbers instead of an object per chunk: about 70 bytes each, and a read
touches a few array items. It is written once, by a format plugin, and then only read, from any
thread.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from lazylayer.api.byteranges import ByteRange
from lazylayer.errors import FormatError

__all__ = ["MAX_CHUNK_SIZE", "Chunk", "ChunkTable", "Seal"]

MAX_CHUNK_SIZE = 256 * 1024 * 1024
"""Bytes. The largest chunk, and the largest `inner + size`, that is accepted: one is held in memory."""


# No compressor makes data larger than this by choice: RFC 1951's stored blocks add 5 bytes each.
_EXPANSION = 2
_OVERHEAD = 64 * 1024


class Chunk(NamedTuple):
    """One chunk, as a value. Offsets and sizes in bytes; `digest` is raw sha256, empty if unknown."""

    offset: int
    """Start of its member in the blob."""
    inner: int
    """Start of the chunk in the inflated member."""
    file_offset: int
    """Start of the chunk in its file."""
    size: int
    """Bytes of the chunk, inflated."""
    digest: bytes
    """The sha256 of the inflated chunk, 32 bytes, or empty where the format has none."""


class Seal(NamedTuple):
    """The promise about a member whose compressed bytes have a digest. Sizes in bytes."""

    end: int
    """End of the member in the blob, perhaps behind the start of the next one."""
    size: int
    """Bytes used of what it inflates to."""
    digest: bytes
    """The sha256 of its compressed bytes, 32 bytes."""


class ChunkTable:
    """All chunks of one layer, numbered from 0 in the order in which they were appended.

    The chunks of one file are appended one after the other. `finish` must be called before reading.
    """

    def __init__(self, blob_size: int) -> None:
        self.blob_size = blob_size
        self._offset = array("Q")
        self._data_end = blob_size
        self._inner = array("Q")
        self._file_offset = array("Q")
        self._size = array("Q")
        self._digests = bytearray()
        self._seals: dict[int, Seal] = {}
        self.blob_order: Sequence[int] = ()
        """Chunk numbers sorted by place in the blob (member, then inner)."""
        self.position: Sequence[int] = ()
        """For each chunk number its index in `blob_order`."""
        self._member_first: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self._offset)

    def append(self, *, offset: int, inner: int, file_offset: int, size: int, digest: bytes) -> int:
        """Add a chunk and return its number. Raises FormatError for impossible numbers."""
        if not 0 <= offset < self.blob_size:
            raise FormatError(f"a chunk at offset {offset} lies outside the blob of {self.blob_size} bytes")
        if inner < 0 or size <= 0 or file_offset < 0:
            raise FormatError(f"the chunk at offset {offset} has a size or offset that cannot be")
        if inner + size > MAX_CHUNK_SIZE:
            raise FormatError(f"the chunk at offset {offset} needs {inner + size} bytes, more than {MAX_CHUNK_SIZE}")
        if len(digest) not in (0, 32):
            raise FormatError(f"the chunk at offset {offset} has a digest of {len(digest)} bytes, not 32")
        if digest == bytes(32):
            raise FormatError(f"the chunk at offset {offset} has a digest of zeros, which nothing hashes to")
        if file_offset + size >= 1 << 63:
            raise FormatError(f"the chunk at offset {offset} reaches past the largest file size")
        self._offset.append(offset)
        self._inner.append(inner)
        self._file_offset.append(file_offset)
        self._size.append(size)
        self._digests += digest or bytes(32)
        return len(self._offset) - 1

    def seal(self, offset: int, seal: Seal) -> None:
        """Seal the member that begins at `offset`. Raises FormatError for impossible numbers."""
        if not 0 <= offset < seal.end <= self.blob_size or len(seal.digest) != 32:
            raise FormatError(f"the member at offset {offset} cannot end at {seal.end} of {self.blob_size} bytes")
        if not 0 < seal.size <= MAX_CHUNK_SIZE:
            raise FormatError(f"the member at offset {offset} holds {seal.size} bytes, not 1 to {MAX_CHUNK_SIZE}")
        if seal.end - offset > _EXPANSION * seal.size + _OVERHEAD:
            raise FormatError(f"the member at offset {offset} takes {seal.end - offset} bytes to hold {seal.size}")
        self._seals[offset] = seal

    def finish(self, data_end: int) -> None:
        """Sort the table by place in the blob; the last member ends at `data_end` at the latest.

        Raises FormatError for a last member behind it, and for a chunk that reaches past its sealed member.
        """
        offsets, inners = self._offset, self._inner
        if self._seals:
            for offset, inner, size in zip(offsets, inners, self._size, strict=True):
                seal = self._seals.get(offset)
                if seal is not None and inner + size > seal.size:
                    raise FormatError(f"a chunk reaches past the {seal.size} bytes of the member at {offset}")
        count = len(offsets)
        pairs = zip(offsets, inners, strict=True)
        following = zip(offsets[1:], inners[1:], strict=True)
        if all(one <= other for one, other in zip(pairs, following, strict=False)):
            self.blob_order = self.position = range(count)
        else:
            self.blob_order = array("Q", sorted(range(count), key=lambda i: (offsets[i], inners[i])))
            self.position = array("Q", bytes(8 * count))
            for index, number in enumerate(self.blob_order):
                self.position[number] = index
        self._find_members(data_end)

    def _find_members(self, data_end: int) -> None:
        first = array("Q")
        last = -1
        for index, number in enumerate(self.blob_order):
            if self._offset[number] != last:
                last = self._offset[number]
                first.append(index)
        if last >= data_end:
            raise FormatError(f"the chunk at offset {last} lies behind the end of the data at {data_end}")
        self._member_first = range(len(first)) if len(first) == len(self.blob_order) else first
        self._data_end = data_end

    @property
    def members(self) -> int:
        """The number of members that hold chunks. Members are numbered from 0, in blob order."""
        return len(self._member_first)

    def member_of(self, number: int) -> int:
        """Return the member that holds a chunk."""
        position = self.position[number]
        first = self._member_first
        return position if isinstance(first, range) else bisect_right(first, position) - 1

    @property
    def total_size(self) -> int:
        """Bytes of all chunks together, inflated; of a sealed member all that it holds, and its compressed bytes."""
        sealed = sum(seal.size + seal.end - offset for offset, seal in self._seals.items())
        return sealed + sum(
            size for offset, size in zip(self._offset, self._size, strict=True) if offset not in self._seals
        )

    def seal_of(self, member: int) -> Seal | None:
        """Return the seal of a member, or None if its chunks are verified one by one."""
        return self._seals.get(self._start(member)) if self._seals else None

    def seal_over(self, number: int) -> Seal | None:
        """Return the seal of the member that holds a chunk, or None."""
        return self._seals.get(self._offset[number]) if self._seals else None

    def needed(self, member: int) -> int:
        """Return how much of what a member inflates to is used, in bytes."""
        seal = self.seal_of(member)
        if seal is not None:
            return seal.size
        inners, sizes = self._inner, self._size
        return max(inners[each] + sizes[each] for each in self.chunks_of(member))

    def _start(self, member: int) -> int:
        return self._offset[self.blob_order[self._member_first[member]]]

    def chunks_of(self, member: int) -> Sequence[int]:
        """Return the numbers of the chunks in a member, in order."""
        first = self._member_first
        end = first[member + 1] if member + 1 < len(first) else len(self.blob_order)
        return self.blob_order[first[member] : end]

    def member_range(self, member: int) -> ByteRange:
        """Return the range of a member in the blob; its end may include bytes behind it, unless it is sealed.

        It ends where the next begins, but no later than its chunks, compressed, could possibly reach:
        a wide gap in the table is not fetched.
        """
        start, seal = self._start(member), self.seal_of(member)
        if seal is not None:
            return ByteRange(start, seal.end)
        end = self._start(member + 1) if member + 1 < self.members else self._data_end
        return ByteRange(start, min(end, start + _EXPANSION * self.needed(member) + _OVERHEAD))

    def member_at(self, offset: int) -> int:
        """Return the first member that starts at `offset` in the blob or behind it; `members` if none does."""
        return bisect_left(range(self.members), offset, key=self._start)

    def __getitem__(self, number: int) -> Chunk:
        return Chunk(
            self._offset[number],
            self._inner[number],
            self._file_offset[number],
            self._size[number],
            self.digest(number),
        )

    def digest(self, number: int) -> bytes:
        """Return the raw sha256 of a chunk, or empty bytes if the format gave none."""
        digest = bytes(self._digests[32 * number : 32 * number + 32])
        return digest if digest != bytes(32) else b""

    def place(self, number: int) -> tuple[int, int]:
        """Return the file offset and size of a chunk, in bytes."""
        return self._file_offset[number], self._size[number]

    def find(self, first: int, count: int, file_offset: int) -> int:
        """Return the number of the chunk that holds `file_offset`, among `count` chunks from `first` on.

        The caller has checked that the file reaches that far.
        """
        if count == 1:
            return first
        return bisect_right(self._file_offset, file_offset, first, first + count) - 1
