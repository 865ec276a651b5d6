"""Reading tar archives as a stream.

`TarReader` understands what layers are made of: v7, USTAR, PAX, GNU tar's own and star's formats,
with long names, large numbers, extended attributes and sparse files in all four forms. It keeps the
header blocks as they are, so that whoever copies an archive can copy them byte for byte.
`tarheaders` writes headers.

Sources: POSIX.1-2001 `pax`, "Extended Header" and "ustar Interchange Format"; GNU tar's manual,
"Basic Tar Format" and "Storing Sparse Files"; the `SCHILY.xattr.` keywords of star.

Used by one thread. Nothing is held in memory but one member's headers, at most a few MiB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NoReturn, Protocol

import msgspec

from lazylayer.errors import BuildError, FormatError

__all__ = ["BLOCK", "MAX_SPARSE_SIZE", "XATTR", "MemberKind", "Readable", "TarMember", "TarReader", "padding"]

BLOCK = 512
"""Bytes. Headers and contents begin at multiples of it."""

MAX_SPARSE_SIZE = 64 * 1024 * 1024 * 1024
"""Bytes. A sparse file that is larger is refused, since its holes would be written out."""

XATTR = b"SCHILY.xattr."
"""What the PAX keyword of an extended attribute begins with."""

MemberKind = Literal["reg", "dir", "symlink", "hardlink", "char", "block", "fifo"]

_MAX_EXTENDED = 4 * 1024 * 1024
_MAX_SPARSE_PARTS = 1_000_000
_MAX_SIZE = (1 << 63) - 1
_MAX_DIGITS = 19
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


class TarMember(msgspec.Struct, gc=False):
    """One member of an archive. Names are bytes as in the archive; sizes in bytes.

    `mtime` is in nanoseconds since 1970. `stored` bytes of content follow the header, padded to a
    whole block; for a sparse file they are the parts that `sparse` lists, (offset, size) each, of a
    file of `size` bytes, the rest being zeros.
    """

    name: bytes
    kind: MemberKind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    link_name: bytes = b""
    user_name: bytes = b""
    group_name: bytes = b""
    dev_major: int = 0
    dev_minor: int = 0
    xattrs: dict[bytes, bytes] | None = None
    stored: int = 0
    sparse: list[tuple[int, int]] | None = None
    raw: bytes = b""
    """The header blocks, extended headers included, exactly as they are in the archive."""
    depends_on_others: bool = False
    """Whether `raw` alone does not say it all, because a global header came before."""


def padding(size: int) -> int:
    """How many bytes are missing from `size` to a whole block."""
    return -size % BLOCK


class Readable(Protocol):
    """What an archive is read from."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, none only at the end."""
        ...


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
        """The records of global headers so far; for a reader that starts in the middle they are given."""
        self.trailer = b""
        """What follows the last member: the blocks of zeros that ended the iteration."""

    @property
    def position(self) -> int:
        """How many bytes of the source were read."""
        return self._at

    def __iter__(self) -> Iterator[TarMember]:
        while (member := self.next()) is not None:
            yield member

    def next(self) -> TarMember | None:
        """The next member, or None at the end of the archive."""
        self.skip()
        raw = bytearray()
        extended: dict[bytes, bytes] = {}
        sparse_pairs: list[bytes] = []
        long_name = long_link = None
        while True:
            header = self._header()
            if header is None:
                if extended or long_name or long_link:
                    raise FormatError(f"the tar archive ends at {self._at} behind an extended header")
                return None
            raw += header
            kind = header[156:157]
            if kind not in _EXTENDED_TYPES:
                break
            content = self._extended_content(header)
            raw += content
            data = content[: _number(header[124:136], "size", self._at)]
            if kind == b"L":
                long_name = data.partition(b"\0")[0]
            elif kind == b"K":
                long_link = data.partition(b"\0")[0]
            elif kind == b"g":
                self.globals = {**self.globals, **_records(data, [], self._at)}
            else:
                sparse_pairs.clear()
                extended = _records(data, sparse_pairs, self._at)
        member = self._member(header, {**self.globals, **extended} if self.globals else extended)
        if long_name is not None and b"path" not in extended:
            member.name = long_name
        if long_link is not None and b"linkpath" not in extended:
            member.link_name = long_link
        self._find_sparse(member, header, extended, sparse_pairs, raw)
        if member.kind == "reg" and member.name.endswith(b"/"):
            # As GNU tar: BSD's old tar marked directories like this.
            member.kind = "dir"
        member.raw = bytes(raw)
        member.depends_on_others = bool(self.globals.keys() - {b"comment"})
        return member

    def read(self, size: int) -> bytes:
        """The next `size` bytes of the current member's content, fewer only at its end."""
        size = min(size, self._left)
        data = self._exactly(size) if size else b""
        self._left -= size
        return data

    def view(self, size: int) -> bytes | memoryview:
        """As `read`, but without copying the bytes where the source has a method `view`."""
        size = min(size, self._left)
        data = self._view(size)
        self._at += len(data)
        if len(data) < size:
            data = bytes(data) + self._exactly(size - len(data))
        self._left -= size
        return data

    def skip(self) -> None:
        """Goes to the end of the current member."""
        while self._left:
            self._left -= len(self._exactly(min(self._left, 1 << 20)))
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
        _check(block, self._at - BLOCK)
        return block

    def _extended_content(self, header: bytes) -> bytes:
        size = _number(header[124:136], "size", self._at)
        if not 0 <= size <= _MAX_EXTENDED:
            raise FormatError(f"the extended tar header at {self._at} has {size} bytes, more than {_MAX_EXTENDED}")
        return self._exactly(size + padding(size))

    def _exactly(self, size: int) -> bytes:
        data = self._some(size)
        if len(data) != size:
            raise FormatError(f"the tar archive ends at {self._at}, in the middle of a member")
        return data

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

    def _member(self, header: bytes, extended: dict[bytes, bytes]) -> TarMember:
        at = self._at - BLOCK
        name = _text(header[:100])
        kind = _KINDS.get(header[156:157])
        if kind is None:
            raise BuildError(f"{name!r} is of type {header[156:157]!r}, which a layer cannot hold")
        magic = header[257:265]
        member = TarMember(name, kind, link_name=_text(header[157:257]))
        member.mode = _number(header[100:108], "mode", at) & 0o7777
        member.uid = _number(header[108:116], "uid", at)
        member.gid = _number(header[116:124], "gid", at)
        member.mtime = _number(header[136:148], "mtime", at) * 1_000_000_000
        size = _number(header[124:136], "size", at)
        if magic[:5] == b"ustar":
            member.user_name, member.group_name = _text(header[265:297]), _text(header[297:329])
            member.dev_major = _number(header[329:337], "major", at) if kind in ("char", "block") else 0
            member.dev_minor = _number(header[337:345], "minor", at) if kind in ("char", "block") else 0
            if magic[5:6] == b"\0":
                end = 476 if header[508:512] == b"tar\0" else 500
                if prefix := _text(header[345:end]):
                    member.name = prefix + b"/" + name
        if extended:
            size = _extend(member, extended, size, at)
        if not 0 <= size <= _MAX_SIZE:
            raise FormatError(f"{member.name!r} has the size {size}")
        # Links, devices, directories and FIFOs have no content, whatever size they give.
        self._left = member.stored = member.size = size if kind == "reg" else 0
        self._pad = padding(self._left)
        return member

    def _find_sparse(
        self, member: TarMember, header: bytes, extended: dict[bytes, bytes], pairs: list[bytes], raw: bytearray
    ) -> None:
        if header[156:157] == b"S":
            numbers = _old_sparse(header[386:482], self._at)
            more = header[482]
            member.size = _number(header[483:495], "real size", self._at)
            while more:
                block = self._exactly(BLOCK)
                raw += block
                numbers += _old_sparse(block[:504], self._at)
                more = block[504]
                _bound_sparse(member, len(numbers) // 2)
        elif member.kind == "reg" and extended.get(b"GNU.sparse.major") == b"1":
            member.name = extended.get(b"GNU.sparse.name", member.name)
            member.size = _decimal(extended.get(b"GNU.sparse.realsize", b""), member)
            numbers = self._read_sparse_map(member, raw)
        elif member.kind == "reg" and (pairs or b"GNU.sparse.map" in extended):
            member.name = extended.get(b"GNU.sparse.name", member.name)
            member.size = _decimal(extended.get(b"GNU.sparse.size", b""), member)
            listed = pairs or extended[b"GNU.sparse.map"].split(b",")
            _bound_sparse(member, len(listed) // 2)
            numbers = [_decimal(each, member) for each in listed if each]
        else:
            return
        member.sparse = _check_sparse(member, numbers)

    def _read_sparse_map(self, member: TarMember, raw: bytearray) -> list[int]:
        """The map of version 1.0: decimal lines in front of the content, padded to a block."""
        text = b""
        numbers: list[int] = []
        count = None
        while count is None or len(numbers) < 2 * count:
            block = self.read(BLOCK)
            if len(block) < BLOCK:
                raise FormatError(f"{member.name!r}: its map of holes is cut short")
            raw += block
            text += block
            *lines, rest = text.split(b"\n")
            for line in lines:
                if count is None:
                    count = _decimal(line, member)
                    _bound_sparse(member, count)
                elif len(numbers) < 2 * count:
                    numbers.append(_decimal(line, member))
            if len(rest) > _MAX_DIGITS and (count is None or len(numbers) < 2 * count):
                _refuse_sparse(member)
            text = rest
        member.stored = self._left
        return numbers


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes, what: str, at: int) -> int:
    """A number as headers hold it: octal digits, or base 256 where the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False)
        bits = 8 * len(field) - 1
        value &= (1 << bits) - 1
        return value - (1 << bits) if field[0] & 0x40 else value
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise FormatError(f"the tar header at {at} has {field!r} as its {what}")
    return int(digits, 8)


def _check(block: bytes, at: int) -> None:
    promised = _number(block[148:156], "checksum", at)
    plain = sum(block) - sum(block[148:156]) + 8 * 32
    if promised == plain:
        return
    signed = plain - 256 * sum(1 for byte in block[:148] + block[156:] if byte > 127)
    if promised != signed:
        raise FormatError(f"at {at} there is no tar header: its checksum is wrong")


def _decimal(text: bytes, member: TarMember) -> int:
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        raise FormatError(f"{member.name!r}: {text[:40]!r} is not a number")
    return int(text)


def _records(data: bytes, sparse_pairs: list[bytes], at: int) -> dict[bytes, bytes]:
    """The records of an extended header. Offsets and sizes of sparse version 0.0 go to `sparse_pairs`."""
    records: dict[bytes, bytes] = {}
    start = 0
    while start < len(data):
        space = data.find(b" ", start, start + 20)
        digits = data[start:space]
        length = int(digits) if space > start and digits.isdigit() else 0
        end = start + length
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space or end > len(data) or data[end - 1 : end] != b"\n" or not equals or not key:
            raise FormatError(f"the extended tar header before {at} has a record that cannot be read")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse_pairs.append(value)
        else:
            records[key] = value
        start = end
    return records


def _extend(member: TarMember, records: dict[bytes, bytes], size: int, at: int) -> int:
    """Applies extended records to a member; returns its size. An empty value means: as in the header."""
    xattrs: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(XATTR):
            xattrs[key[len(XATTR) :]] = value
        elif not value:
            continue
        elif key == b"path":
            member.name = value
        elif key == b"linkpath":
            member.link_name = value
        elif key == b"mtime":
            member.mtime = _nanoseconds(value, at)
        elif key == b"uname":
            member.user_name = value
        elif key == b"gname":
            member.group_name = value
        elif key in (b"size", b"uid", b"gid"):
            number = _decimal(value, member)
            if key == b"size":
                size = number
            elif key == b"uid":
                member.uid = number
            else:
                member.gid = number
    member.xattrs = xattrs or None
    return size


def _nanoseconds(text: bytes, at: int) -> int:
    whole, _, fraction = text.partition(b".")
    negative = whole.startswith(b"-")
    digits = whole.lstrip(b"-")
    if not (digits + fraction).isdigit() or len(digits) > _MAX_DIGITS:
        raise FormatError(f"the extended tar header before {at} has the time {text[:40]!r}")
    value = int(digits or b"0") * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return -value if negative else value


# --- sparse files ----------------------------------------------------------------------------------


def _old_sparse(area: bytes, at: int) -> list[int]:
    numbers: list[int] = []
    for start in range(0, len(area), 24):
        if not area[start] and not area[start + 12]:
            break
        numbers.append(_number(area[start : start + 12], "sparse offset", at))
        numbers.append(_number(area[start + 12 : start + 24], "sparse size", at))
    return numbers


def _bound_sparse(member: TarMember, parts: int) -> None:
    if parts > _MAX_SPARSE_PARTS:
        raise FormatError(f"{member.name!r}: a sparse file of more than {_MAX_SPARSE_PARTS} parts")


def _check_sparse(member: TarMember, numbers: list[int]) -> list[tuple[int, int]]:
    """The parts of a sparse file: in order, apart, inside the file, and as large as what is stored."""
    parts = list(zip(numbers[::2], numbers[1::2], strict=False))
    reached = 0
    for offset, size in parts:
        if offset < reached or size < 0:
            _refuse_sparse(member)
        reached = offset + size
    stored = sum(size for _, size in parts)
    if len(numbers) % 2 or reached > member.size or stored != member.stored:
        _refuse_sparse(member)
    if member.size > MAX_SPARSE_SIZE:
        raise BuildError(f"{member.name!r} is a sparse file of {member.size} bytes, more than {MAX_SPARSE_SIZE}")
    return [(offset, size) for offset, size in parts if size]


def _refuse_sparse(member: TarMember) -> NoReturn:
    raise FormatError(f"{member.name!r}: its map of holes does not fit its size")
