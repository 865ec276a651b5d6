"""Read the table of files of a plain tar that passes by.

What a zTOC cannot describe so that every reader of zTOCs shows the same files is refused: sparse files, global
headers, and numbers that its fields cannot hold.
"""

from __future__ import annotations

from collections.abc import Iterator

from lazylayer.errors import BuildError
from lazylayer_tarlayers.tarfields import number, read_records
from lazylayer_tarlayers.tarmember import BLOCK, TarMember, padding
from lazylayer_tarlayers.tarreader import TarReader
from lazylayer_ztoc.model import FileRecord

__all__ = ["MAX_FILES", "NotIndexableError", "PieceReader", "read_table"]

MAX_FILES = 2_000_000

_MAX_ID = (1 << 32) - 1
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
"""The years 1 to 9999, which RFC 3339 can write."""

_NO_DEVICE = (b"0000000\0" * 2, bytes(16))


class NotIndexableError(BuildError):
    """A layer is in order, but a zTOC cannot describe it."""


class PieceReader:
    """Reads from pieces that each are valid until the next one is asked for."""

    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def view(self, size: int) -> memoryview:
        """Return up to `size` bytes, valid until the next call; none only at the end."""
        if not self._rest:
            self._rest = next(self._pieces, self._rest)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; none only at the end."""
        return bytes(self.view(size))


def read_table(source: PieceReader) -> list[FileRecord]:
    """Return the files of the tar, and read the source to its end.

    Raises FormatError for a broken archive, and NotIndexableError for one that a zTOC cannot describe.
    """
    reader = TarReader(source)
    files: list[FileRecord] = []
    for member in reader:
        if reader.globals:
            raise NotIndexableError("its tar has global headers, which a zTOC cannot describe")
        if len(files) == MAX_FILES:
            raise NotIndexableError(f"its tar has more than {MAX_FILES} entries")
        files.append(_record(member, reader.position))
    while source.view(1 << 20):
        pass
    return files


def _record(member: TarMember, data_offset: int) -> FileRecord:
    name = member.name[:200]
    if member.sparse is not None:
        raise NotIndexableError(f"{name!r} is a sparse file, which a zTOC cannot describe")
    if not (0 <= member.uid <= _MAX_ID and 0 <= member.gid <= _MAX_ID):
        raise NotIndexableError(f"{name!r}: its owner {member.uid}:{member.gid} does not fit into a zTOC")
    if not _FIRST_SECOND <= member.mtime // 1_000_000_000 <= _LAST_SECOND:
        raise NotIndexableError(f"{name!r}: its time of modification lies outside the years 1 to 9999")
    header = member.raw[-BLOCK:]
    major, minor = _device(header, data_offset)
    return FileRecord(
        name=member.name,
        type=member.kind,
        data_offset=data_offset,
        size=member.size,
        linkname=member.link_name,
        # The mode as it stands in the header, with a file type's bits if it has them, as others take it.
        mode=number(header[100:108], "mode", data_offset),
        uid=member.uid,
        gid=member.gid,
        uname=member.user_name,
        gname=member.group_name,
        mtime_ns=member.mtime,
        devmajor=major,
        devminor=minor,
        pax=tuple(sorted(_records(member.raw).items())) if len(member.raw) > BLOCK else (),
    )


def _device(header: bytes, at: int) -> tuple[int, int]:
    """Return the device numbers in a header, which some archives have for ordinary files too."""
    numbers = header[329:345]
    if numbers in _NO_DEVICE or header[257:262] != b"ustar":
        return 0, 0
    return number(numbers[:8], "major", at), number(numbers[8:], "minor", at)


def _records(raw: bytes) -> dict[bytes, bytes]:
    """Return the PAX records in the header blocks of a member: those of the last extended header."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at + BLOCK < len(raw):
        size = number(raw[at + 124 : at + 136], "size", at)
        content = at + BLOCK
        if raw[at + 156 : at + 157] in (b"x", b"X"):
            records = read_records(raw[content : content + size], [], at)
        at = content + size + padding(size)
    return records
