"""Choose the bytes to fetch for a member, then inflate them and verify its chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.chunks import ChunkTable
from lazylayer.api.oci import Digest
from lazylayer.errors import LazylayerError, VerificationError

__all__ = ["WantedMember", "ranges_of", "unpack"]

MERGED_GAP = 32 * 1024
"""The largest gap between two members, in bytes, to fetch along rather than make two ranges."""


class WantedMember(NamedTuple):
    """A member to fetch, from byte `start` of the blob up to `end`; of what it inflates to, `need` bytes are used."""

    number: int
    start: int
    end: int
    need: int

    @classmethod
    def of(cls, table: ChunkTable, number: int) -> Self:
        """Return the part of a member to fetch. A lying table cannot make it larger than the chunks could need."""
        place = table.member_range(number)
        need = table.needed(number)
        if table.seal_of(number):
            return cls(number, *place, need)
        longest = need + need // 64 + 64 * 1024
        return cls(number, place.start, min(place.end, place.start + longest), need)


def ranges_of(members: Sequence[WantedMember]) -> list[ByteRange]:
    """Return the ranges to ask for; members that touch, or nearly so, share one."""
    ranges: list[ByteRange] = []
    for member in members:
        if ranges and member.start - ranges[-1].end <= MERGED_GAP:
            ranges[-1] = ByteRange(ranges[-1].start, max(ranges[-1].end, member.end))
        else:
            ranges.append(ByteRange(member.start, member.end))
    return ranges


def unpack(
    blob: Digest,
    table: ChunkTable,
    member: WantedMember,
    data: bytes | bytearray,
    inflate: Callable[[memoryview, int, int], bytes],
) -> tuple[bytes, dict[int, bytes | LazylayerError]]:
    """Return what a member inflates to, and its chunks by number: a VerificationError in place of a bad one.

    Raises VerificationError for a member that cannot be inflated, or whose seal is broken.
    """
    seal = table.seal_of(member.number)
    if seal is not None and hashlib.sha256(data).digest() != seal.digest:
        raise VerificationError(f"layer {blob}, bytes at {member.start}: they do not have the digest of the index")
    try:
        plain = inflate(memoryview(data), member.need, member.start)
    except LazylayerError as error:
        raise VerificationError(f"layer {blob}, bytes at {member.start}: {error}") from None
    chunks: dict[int, bytes | LazylayerError] = {}
    for number in table.chunks_of(member.number):
        chunk = table[number]
        whole = chunk.inner == 0 and chunk.size == len(plain)
        part = plain if whole else plain[chunk.inner : chunk.inner + chunk.size]
        if len(part) == chunk.size and (not chunk.digest or hashlib.sha256(part).digest() == chunk.digest):
            chunks[number] = part
        else:
            chunks[number] = VerificationError(
                f"layer {blob}, bytes at {member.start}: the chunk does not have the digest "
                f"that the table of contents promises"
            )
    return plain, chunks
