"""One member of a tar archive, and the source that an archive is read from."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

__all__ = ["BLOCK", "MAX_PATH", "XATTR", "MemberKind", "Readable", "TarMember", "padding"]

BLOCK = 512
"""Bytes. Headers and contents begin at multiples of it."""

MAX_PATH = 16 * 1024
"""Bytes. A longer name or link is refused: no system call takes one."""

XATTR = b"SCHILY.xattr."
"""The prefix of the PAX keyword of an extended attribute."""

MemberKind = Literal["reg", "dir", "symlink", "hardlink", "char", "block", "fifo"]


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
    """The header blocks, extended headers included, exactly as in the archive."""
    depends_on_others: bool = False
    """True if `raw` alone is incomplete, because a global header came before it."""


def padding(size: int) -> int:
    """Return how many bytes are missing from `size` to a whole block."""
    return -size % BLOCK


class Readable(Protocol):
    """The source of an archive."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none only at the end."""
        ...
