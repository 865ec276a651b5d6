"""Write the headers of tar archives in the PAX format, the only one that can hold everything.

Source: POSIX.1-2001 `pax`, "Extended Header" and "ustar Interchange Format"; the `SCHILY.xattr.`
keywords of star. Thread-safe.
"""

from __future__ import annotations

from lazylayer.errors import BuildError
from lazylayer_tarlayers.tarmember import BLOCK, XATTR, MemberKind, TarMember, padding

__all__ = ["make_header"]

_TYPES: dict[MemberKind, bytes] = {
    "reg": b"0",
    "hardlink": b"1",
    "symlink": b"2",
    "char": b"3",
    "block": b"4",
    "dir": b"5",
    "fifo": b"6",
}


def make_header(member: TarMember) -> bytes:
    """Return the header blocks, in the PAX format, of a member whose whole content follows.

    `raw` and `sparse` are not looked at. The same member always gives the same bytes. Raises
    BuildError for device numbers that no header can hold.
    """
    if not 0 <= member.dev_major < 8**7 or not 0 <= member.dev_minor < 8**7:
        raise BuildError(f"{member.name!r}: invalid device {member.dev_major}:{member.dev_minor}")
    records: list[tuple[bytes, bytes]] = []
    name = _fit(member.name, 100, b"path", records)
    link = _fit(member.link_name, 100, b"linkpath", records)
    user = _fit(member.user_name, 32, b"uname", records)
    group = _fit(member.group_name, 32, b"gname", records)
    seconds, nanoseconds = divmod(member.mtime, 1_000_000_000)
    if nanoseconds or not 0 <= seconds < 1 << 33:
        records.append((b"mtime", _decimal_time(member.mtime)))
    numbers = {
        key: _fit_number(value, width, key, records)
        for key, value, width in (
            (b"uid", member.uid, 8),
            (b"gid", member.gid, 8),
            (b"size", member.size, 12),
        )
    }
    records += [(XATTR + key, value) for key, value in sorted((member.xattrs or {}).items())]
    time = seconds if 0 <= seconds < 1 << 33 else 0
    header = _ustar(member, name, link, user, group, numbers, time, _TYPES[member.kind])
    if not records:
        return header
    body = b"".join(_record(key, value) for key, value in records)
    extended = TarMember(b"PaxHeaders/" + name.rpartition(b"/")[2][:80], "reg", mode=0o644)
    numbers = {b"uid": 0, b"gid": 0, b"size": len(body)}
    return _ustar(extended, extended.name, b"", b"", b"", numbers, 0, b"x") + body + bytes(padding(len(body))) + header


def _fit(text: bytes, width: int, key: bytes, records: list[tuple[bytes, bytes]]) -> bytes:
    if len(text) <= width and text.isascii():
        return text
    records.append((key, text))
    return bytes(byte if byte < 128 else 95 for byte in text[:width])


def _fit_number(value: int, width: int, key: bytes, records: list[tuple[bytes, bytes]]) -> int:
    if 0 <= value < 8 ** (width - 1):
        return value
    records.append((key, b"%d" % value))
    return 0


def _decimal_time(mtime: int) -> bytes:
    seconds, nanoseconds = divmod(abs(mtime), 1_000_000_000)
    fraction = b".%09d" % nanoseconds if nanoseconds else b""
    return (b"-" if mtime < 0 else b"") + b"%d" % seconds + fraction.rstrip(b"0")


def _record(key: bytes, value: bytes) -> bytes:
    size = len(key) + len(value) + 3
    length = size + len(str(size))
    if len(str(length)) > len(str(size)):
        length = size + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _ustar(
    member: TarMember,
    name: bytes,
    link: bytes,
    user: bytes,
    group: bytes,
    numbers: dict[bytes, int],
    mtime: int,
    kind: bytes,
) -> bytes:
    header = bytearray(BLOCK)
    header[0 : len(name)] = name
    header[100:108] = b"%07o\0" % (member.mode & 0o7777)
    header[108:116] = b"%07o\0" % numbers[b"uid"]
    header[116:124] = b"%07o\0" % numbers[b"gid"]
    header[124:136] = b"%011o\0" % numbers[b"size"]
    header[136:148] = b"%011o\0" % mtime
    header[148:156] = b" " * 8
    header[156:157] = kind
    header[157 : 157 + len(link)] = link
    header[257:265] = b"ustar\x0000"
    header[265 : 265 + len(user)] = user
    header[297 : 297 + len(group)] = group
    header[329:337] = b"%07o\0" % member.dev_major
    header[337:345] = b"%07o\0" % member.dev_minor
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)
