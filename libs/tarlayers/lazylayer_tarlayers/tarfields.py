"""Decode the fields of tar headers and the records of PAX headers.

Sources: POSIX.1-2001 `pax`, "Extended Header" and "ustar Interchange Format"; GNU tar's manual, "Basic Tar Format";
the `SCHILY.xattr.` keywords of star. All functions are thread-safe.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from lazylayer.errors import FormatError
from lazylayer_tarlayers.tarmember import XATTR, TarMember

__all__ = ["MAX_DIGITS", "apply_records", "check_header", "decimal", "number", "read_records", "text"]

MAX_DIGITS = 19

_SPARSE_PAIRS = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")


def text(field: bytes) -> bytes:
    """Return a field up to its first NUL."""
    return field.partition(b"\0")[0]


def number(field: bytes, what: str, at: int) -> int:
    """Return a number of a header: octal digits, or base 256 where the first bit is set.

    Raises FormatError, which names the field, `what`, and the header, `at`.
    """
    value = _octal(field)
    if value is not None:
        return value
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False)
        bits = 8 * len(field) - 1
        value &= (1 << bits) - 1
        return value - (1 << bits) if field[0] & 0x40 else value
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise FormatError(f"the tar header at {at}: invalid {what} {field!r}")
    return int(digits, 8)


@functools.lru_cache(maxsize=4096)
def _octal(field: bytes) -> int | None:
    """Return the number of a field that is all octal digits but for its end, as nearly all are; else None.

    Most fields of an archive are those of the entry before, so that remembering costs less than reading.
    """
    digits = field[:-1]
    plain = digits.isdigit() and field[-1] in b" \0" and b"8" not in digits and b"9" not in digits
    return int(digits, 8) if plain else None


def check_header(block: bytes, at: int) -> None:
    """Raise FormatError unless a block has the checksum of a tar header, of signed or of unsigned bytes."""
    promised = number(block[148:156], "checksum", at)
    plain = sum(block) - sum(block[148:156]) + 8 * 32
    if promised == plain:
        return
    signed = plain - 256 * sum(1 for byte in block[:148] + block[156:] if byte > 127)
    if promised != signed:
        raise FormatError(f"no tar header at {at}: its checksum is wrong")


def decimal(digits: bytes, member: TarMember) -> int:
    """Return a decimal number of a member's headers. Raises FormatError."""
    if not digits.isdigit() or len(digits) > MAX_DIGITS:
        raise FormatError(f"{member.name[:200]!r}: invalid number {digits[:40]!r}")
    return int(digits)


def read_records(data: bytes, sparse_pairs: list[bytes], at: int) -> dict[bytes, bytes]:
    """Return the records of a PAX header; offsets and sizes of sparse version 0.0 go to `sparse_pairs`.

    NULs may follow the records, as GNU tar allows. Raises FormatError, which names the header in front
    of `at`.
    """
    records: dict[bytes, bytes] = {}
    start = 0
    while start < len(data) and data[start]:
        key, value, start = _record(data, start, at)
        if key in _SPARSE_PAIRS:
            sparse_pairs.append(value)
        else:
            records[key] = value
    if data[start:].strip(b"\0"):
        raise FormatError(f"the extended tar header before {at}: records follow NULs")
    return records


def _record(data: bytes, start: int, at: int) -> tuple[bytes, bytes, int]:
    """Return key, value and end of the record at `start`; the end always lies behind the start."""
    space = data.find(b" ", start, start + 20)
    digits = data[start:space] if space > start else b""
    end = start + int(digits) if digits.isdigit() else -1
    if space < end - 1 and end <= len(data) and data[end - 1 : end] == b"\n":
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if equals and key:
            return key, value, end
    raise FormatError(f"the extended tar header before {at}: invalid record {data[start : start + 40]!r}")


def apply_records(member: TarMember, records: Mapping[bytes, bytes], size: int, at: int) -> int:
    """Apply PAX records to a member and return its size. An empty value means the header's own."""
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
        elif key == b"size":
            size = decimal(value, member)
        elif key == b"uid":
            member.uid = decimal(value, member)
        elif key == b"gid":
            member.gid = decimal(value, member)
    member.xattrs = xattrs or None
    return size


def _nanoseconds(time: bytes, at: int) -> int:
    whole, _, fraction = time.partition(b".")
    negative = whole.startswith(b"-")
    digits = whole.lstrip(b"-")
    if not (digits + fraction).isdigit() or len(digits) > MAX_DIGITS:
        raise FormatError(f"the extended tar header before {at}: invalid time {time[:40]!r}")
    value = int(digits or b"0") * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return -value if negative else value
