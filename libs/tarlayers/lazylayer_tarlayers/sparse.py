"""Read the maps of sparse files, which say where their stored parts lie, in all four forms of GNU tar.

Source: GNU tar's manual, "Storing Sparse Files". A map is a list of numbers: offset and size of each part.
Every map is bounded before it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from lazylayer.errors import BuildError, FormatError
from lazylayer_tarlayers.tarfields import MAX_DIGITS, decimal, number
from lazylayer_tarlayers.tarmember import BLOCK, Readable, TarMember

__all__ = ["MAX_SPARSE_SIZE", "SparseContent", "old_map", "pax_map", "read_map", "set_parts"]

MAX_SPARSE_SIZE = 64 * 1024 * 1024 * 1024
"""Bytes. A larger sparse file is refused, since its holes would be written out."""

_MAX_PARTS = 1_000_000
_OLD_ENTRY = 24
_Read = Callable[[int], bytes]


def old_map(member: TarMember, header: bytes, read: _Read, raw: bytearray, at: int) -> list[int]:
    """Return the map of GNU's type `S`: in the header, and in blocks behind it, which are added to `raw`."""
    numbers = _old_entries(header[386:482], at)
    more = header[482]
    member.size = number(header[483:495], "real size", at)
    blocks = 0
    while more:
        block = read(BLOCK)
        raw += block
        blocks += 1
        # Each block has room for 21 parts, though it may have none.
        _bound(member, 21 * blocks)
        numbers += _old_entries(block[:504], at)
        more = block[504]
    return numbers


def pax_map(member: TarMember, records: Mapping[bytes, bytes], pairs: list[bytes]) -> list[int] | None:
    """Return the map of versions 0.0 and 0.1, which PAX records hold, or None if there is none."""
    if not pairs and b"GNU.sparse.map" not in records:
        return None
    member.name = records.get(b"GNU.sparse.name", member.name)
    member.size = decimal(records.get(b"GNU.sparse.size", b""), member)
    listed = pairs or records[b"GNU.sparse.map"].split(b",")
    _bound(member, len(listed) // 2)
    return [decimal(each, member) for each in listed if each]


def read_map(member: TarMember, records: Mapping[bytes, bytes], read: _Read, raw: bytearray) -> list[int]:
    """Return the map of version 1.0: decimal lines in front of the content, padded to a block.

    `read` reads the member's content; the blocks of the map are added to `raw`.
    """
    member.name = records.get(b"GNU.sparse.name", member.name)
    member.size = decimal(records.get(b"GNU.sparse.realsize", b""), member)
    lines = b""
    numbers: list[int] = []
    count = None
    while count is None or len(numbers) < 2 * count:
        block = read(BLOCK)
        if len(block) < BLOCK:
            raise FormatError(f"{member.name[:200]!r}: its sparse map is cut short")
        raw += block
        *whole, lines = (lines + block).split(b"\n")
        for line in whole:
            if count is None:
                count = decimal(line, member)
                _bound(member, count)
            elif len(numbers) < 2 * count:
                numbers.append(decimal(line, member))
        if len(lines) > MAX_DIGITS and (count is None or len(numbers) < 2 * count):
            _refuse(member)
    return numbers


def set_parts(member: TarMember, numbers: list[int]) -> None:
    """Set the parts of a sparse member: in order, apart, inside the file, and as large as what is stored.

    Raises FormatError for a map that does not fit, and BuildError for a file that is too large.
    """
    parts = list(zip(numbers[::2], numbers[1::2], strict=False))
    reached = 0
    for offset, size in parts:
        if offset < reached or size < 0:
            _refuse(member)
        reached = offset + size
    if len(numbers) % 2 or reached > member.size or sum(size for _, size in parts) != member.stored:
        _refuse(member)
    if member.size > MAX_SPARSE_SIZE:
        raise BuildError(f"{member.name[:200]!r}: a sparse file of {member.size} bytes, more than {MAX_SPARSE_SIZE}")
    member.sparse = [(offset, size) for offset, size in parts if size]


def _old_entries(area: bytes, at: int) -> list[int]:
    numbers: list[int] = []
    for start in range(0, len(area), _OLD_ENTRY):
        if not area[start] and not area[start + 12]:
            break
        numbers.append(number(area[start : start + 12], "sparse offset", at))
        numbers.append(number(area[start + 12 : start + 24], "sparse size", at))
    return numbers


def _bound(member: TarMember, parts: int) -> None:
    if parts > _MAX_PARTS:
        raise FormatError(f"{member.name[:200]!r}: a sparse file of more than {_MAX_PARTS} parts")


def _refuse(member: TarMember) -> NoReturn:
    raise FormatError(f"{member.name[:200]!r}: its sparse map does not fit its size")


class SparseContent:
    """The content of a sparse file as programs read it: with zeros for its holes. Used by one thread.

    `content` is at the beginning of the member's stored parts.
    """

    def __init__(self, member: TarMember, content: Readable) -> None:
        assert member.sparse is not None
        self._content = content
        self._parts = [*member.sparse, (member.size, 0)]
        self._part = 0
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes; fewer only at the end."""
        pieces = []
        while size:
            offset, length = self._parts[self._part]
            if self._at < offset:
                piece = bytes(min(size, offset - self._at))
            elif self._at < offset + length:
                piece = self._content.read(min(size, offset + length - self._at))
            elif self._part + 1 < len(self._parts):
                self._part += 1
                continue
            else:
                break
            pieces.append(piece)
            self._at += len(piece)
            size -= len(piece)
        return b"".join(pieces)
