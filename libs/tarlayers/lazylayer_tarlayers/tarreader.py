"""Read tar archives as a stream.

`TarReader` understands the formats that layers are made of: v7, USTAR, PAX, GNU tar's own and star's, with
long names, large numbers, extended attributes and sparse files in all four forms. It keeps the header
blocks, so that an archive can be copied byte for byte. `tarwriter` writes headers.

Sources: POSIX.1-2001 `pax`, "ustar Interchange Format"; GNU tar's manual, "Basic Tar Format".

Used by one thread. Memory holds the headers of one member and the records of global headers; both are
bounded, and every step reads on or raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from lazylayer.errors import BuildError, FormatError
from lazylayer_tarlayers.sparse import old_map, pax_map, read_map, set_parts
from lazylayer_tarlayers.tarfields import apply_records, check_header, number, read_records, text
from lazylayer_tarlayers.tarmember import BLOCK, MAX_PATH, MemberKind, Readable, TarMember, padding

__all__ = ["TarReader"]

_MAX_EXTENDED = 4 * 1024 * 1024
"""Bytes of one extended header, of all those of one member together, and of all global records."""
_MAX_SIZE = (1 << 63) - 1
_PIECE = 1 << 20
_KINDS: dict[bytes, MemberKind] = {
    b"\0": "reg",
    b"0": "reg",
    b"7": "reg",
    b"S": "reg",
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "char",
    b"4": "block",
    b"5": "dir",
    b"6": "fifo",
}
_EXTENDED_TYPES = (b"x", b"g", b"L", b"K", b"X")


class _Extended:
    """The extended headers in front of one member."""

    __slots__ = ("long_link", "long_name", "raw", "records", "sparse_pairs")

    def __init__(self) -> None:
        self.raw = bytearray()
        self.records: dict[bytes, bytes] = {}
        self.sparse_pairs: list[bytes] = []
        self.long_name: bytes | None = None
        self.long_link: bytes | None = None

    @property
    def given(self) -> bool:
        """True if anything was said of the next member."""
        return bool(self.records or self.long_name or self.long_link)

    def take(self, kind: bytes, data: bytes, at: int) -> None:
        """Take the content of an extended header, but not of a global one."""
        if kind == b"L":
            self.long_name = text(data)
        elif kind == b"K":
            self.long_link = text(data)
        else:
            self.sparse_pairs.clear()
            self.records = read_records(data, self.sparse_pairs, at)


class TarReader:
    """Iterates over the members of an archive; `read` returns the content of the current one.

    Reads `source` once, front to back; content that was not read is skipped. Raises FormatError,
    which names the place or the member, for an archive that is broken or cut short, and BuildError
    for a member of a kind that no layer can hold.
    """

    def __init__(self, source: Readable, global_records: Mapping[bytes, bytes] | None = None) -> None:
        self._source = source
        self._view: Callable[[int], bytes | memoryview] = getattr(source, "view", source.read)
        self._at = 0
        self._left = 0
        self._pad = 0
        self.globals: Mapping[bytes, bytes] = global_records or {}
        """The records of global headers so far; given to a reader that starts in the middle."""
        self.trailer = b""
        """The blocks of zeros that ended the iteration."""

    @property
    def position(self) -> int:
        """Bytes of the source that were read."""
        return self._at

    def __iter__(self) -> Iterator[TarMember]:
        while (member := self.next()) is not None:
            yield member

    def next(self) -> TarMember | None:
        """Return the next member, or None at the end of the archive."""
        self.skip()
        extended = _Extended()
        while True:
            header = self._header()
            if header is None:
                if extended.given:
                    raise FormatError(f"the tar archive ends at {self._at} behind an extended header")
                return None
            extended.raw += header
            kind = header[156:157]
            if kind not in _EXTENDED_TYPES:
                return self._member(header, extended)
            data = self._extended_content(header, extended)
            if kind == b"g":
                self._take_globals(data)
            else:
                extended.take(kind, data, self._at)

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes of the current member's content; fewer only at its end."""
        size = min(size, self._left)
        data = self._exactly(size) if size else b""
        self._left -= size
        return data

    def view(self, size: int) -> bytes | memoryview:
        """Return what `read` returns, without copying it where the source has a method `view`."""
        size = min(size, self._left)
        data = self._view(size)
        self._at += len(data)
        if len(data) < size:
            data = bytes(data) + self._exactly(size - len(data))
        self._left -= size
        return data

    def skip(self) -> None:
        """Go to the end of the current member."""
        while self._left:
            # A view may be shorter than asked for, and copies nothing.
            size = len(self._view(min(self._left, _PIECE)))
            if not size:
                raise self._cut_short()
            self._at += size
            self._left -= size
        if self._pad:
            # The last padding is missing from some archives.
            self._some(self._pad)
            self._pad = 0

    # --- blocks ------------------------------------------------------------------------------------

    def _header(self) -> bytes | None:
        block = self._some(BLOCK)
        if not block:
            return None
        if len(block) < BLOCK:
            raise FormatError(f"the tar archive ends in the middle of the header at {self._at - len(block)}")
        if not block.strip(b"\0"):
            second = self._some(BLOCK)
            self.trailer = block + second
            if second.strip(b"\0"):
                raise FormatError(f"the tar archive has a single block of zeros at {self._at - 2 * BLOCK}")
            return None
        check_header(block, self._at - BLOCK)
        return block

    def _extended_content(self, header: bytes, extended: _Extended) -> bytes:
        size = number(header[124:136], "size", self._at)
        if not 0 <= size <= _MAX_EXTENDED - len(extended.raw):
            raise FormatError(f"the extended tar headers at {self._at} have more than {_MAX_EXTENDED} bytes")
        content = self._exactly(size + padding(size))
        extended.raw += content
        return content[:size]

    def _take_globals(self, data: bytes) -> None:
        records = {**self.globals, **read_records(data, [], self._at)}
        if sum(len(key) + len(value) for key, value in records.items()) > _MAX_EXTENDED:
            raise FormatError(f"the global tar headers before {self._at} have more than {_MAX_EXTENDED} bytes")
        self.globals = records

    def _exactly(self, size: int) -> bytes:
        data = self._some(size)
        if len(data) != size:
            raise self._cut_short()
        return data

    def _cut_short(self) -> FormatError:
        return FormatError(f"the tar archive ends at {self._at}, in the middle of a member")

    def _some(self, size: int) -> bytes:
        data = self._source.read(size)
        if len(data) < size:
            pieces = [data]
            missing = size - len(data)
            while missing and (piece := self._source.read(missing)):
                pieces.append(piece)
                missing -= len(piece)
            data = b"".join(pieces)
        self._at += len(data)
        return data

    # --- members -----------------------------------------------------------------------------------

    def _member(self, header: bytes, extended: _Extended) -> TarMember:
        records = {**self.globals, **extended.records} if self.globals else extended.records
        member = self._described(header, records)
        if extended.long_name is not None and b"path" not in extended.records:
            member.name = extended.long_name
        if extended.long_link is not None and b"linkpath" not in extended.records:
            member.link_name = extended.long_link
        numbers = self._sparse_map(member, header, extended)
        if numbers is not None:
            set_parts(member, numbers)
        if max(len(member.name), len(member.link_name)) > MAX_PATH:
            raise FormatError(f"{member.name[:80]!r}…: a name or link of more than {MAX_PATH} bytes")
        if member.kind == "reg" and member.name.endswith(b"/"):
            # As GNU tar: BSD's old tar marked directories like this.
            member.kind = "dir"
        member.raw = bytes(extended.raw)
        member.depends_on_others = bool(self.globals.keys() - {b"comment"})
        return member

    def _described(self, header: bytes, records: Mapping[bytes, bytes]) -> TarMember:
        """Return the member that a header and its records describe, at the beginning of its content."""
        at = self._at - BLOCK
        name = text(header[:100])
        kind = _KINDS.get(header[156:157])
        if kind is None:
            raise BuildError(f"{name!r}: a member of type {header[156:157]!r}, which a layer cannot hold")
        member = TarMember(name, kind, link_name=text(header[157:257]))
        member.mode = number(header[100:108], "mode", at) & 0o7777
        member.uid = number(header[108:116], "uid", at)
        member.gid = number(header[116:124], "gid", at)
        member.mtime = number(header[136:148], "mtime", at) * 1_000_000_000
        _add_ustar(member, header, at)
        size = number(header[124:136], "size", at)
        if records:
            size = apply_records(member, records, size, at)
        if not 0 <= size <= _MAX_SIZE:
            raise FormatError(f"{member.name[:200]!r}: invalid size {size}")
        # Links, devices, directories and FIFOs have no content, whatever size they give.
        self._left = member.stored = member.size = size if kind == "reg" else 0
        self._pad = padding(self._left)
        return member

    def _sparse_map(self, member: TarMember, header: bytes, extended: _Extended) -> list[int] | None:
        """Return the map of a sparse file, or None if the member is none."""
        if header[156:157] == b"S":
            return old_map(member, header, self._exactly, extended.raw, self._at)
        if member.kind != "reg":
            return None
        if extended.records.get(b"GNU.sparse.major") == b"1":
            numbers = read_map(member, extended.records, self.read, extended.raw)
            member.stored = self._left
            return numbers
        return pax_map(member, extended.records, extended.sparse_pairs)


def _add_ustar(member: TarMember, header: bytes, at: int) -> None:
    """Add the fields that USTAR and its successors have."""
    magic = header[257:265]
    if magic[:5] != b"ustar":
        return
    member.user_name, member.group_name = text(header[265:297]), text(header[297:329])
    if member.kind in ("char", "block"):
        member.dev_major = number(header[329:337], "major", at)
        member.dev_minor = number(header[337:345], "minor", at)
    if magic[5:6] == b"\0":
        end = 476 if header[508:512] == b"tar\0" else 500
        if prefix := text(header[345:end]):
            member.name = prefix + b"/" + member.name
