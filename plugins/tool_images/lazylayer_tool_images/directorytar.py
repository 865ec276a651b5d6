"""Make a tar archive of a directory tree on this machine.

The archive is made while it is read, and is the same each time for the same tree: names are sorted, and access and
change times are left out. Symbolic links are not followed. Sockets are left out, as tar does. Used by one thread.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from lazylayer.errors import BuildError
from lazylayer_tarlayers.tarmember import BLOCK, MemberKind, TarMember, padding
from lazylayer_tarlayers.tarwriter import make_header

__all__ = ["DirectoryArchive"]

_PIECE = 1024 * 1024
_KINDS: dict[int, MemberKind] = {
    stat.S_IFREG: "reg",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
}


class DirectoryArchive(io.RawIOBase):
    """The archive of everything below `directory`, with the directory as its root.

    Raises BuildError for a file that cannot be read, or whose size changes meanwhile.
    """

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise BuildError(f"{directory} is not a directory")
        self._pieces = _archive(os.fsencode(directory))
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; none only at the end."""
        if size < 0:
            size = 1 << 62
        pieces: list[memoryview] = []
        while size:
            if not self._rest:
                piece = next(self._pieces, b"")
                if not piece:
                    break
                self._rest = memoryview(piece)
            pieces.append(self._rest[:size])
            self._rest = self._rest[size:]
            size -= len(pieces[-1])
        return b"".join(pieces)


def _archive(top: bytes) -> Iterator[bytes]:
    linked: dict[tuple[int, int], bytes] = {}
    stack = [b""]
    while stack:
        name = stack.pop()
        path = top + b"/" + name if name else top
        try:
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode):
                prefix = name + b"/" if name else b""
                stack += sorted((prefix + each for each in os.listdir(path)), reverse=True)  # noqa: PTH208 - bytes
            member = _member(name, path, status, linked)
            if member is None:
                continue
            yield make_header(member)
            if member.kind == "reg" and member.size:
                yield from _content(path, member.size)
        except OSError as error:
            raise BuildError(f"{os.fsdecode(path)}: {error.strerror}") from error
    yield bytes(2 * BLOCK)


def _member(name: bytes, path: bytes, status: os.stat_result, linked: dict[tuple[int, int], bytes]) -> TarMember | None:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    member = TarMember((name + b"/" if name else b"./") if kind == "dir" else name, kind)
    member.mode = status.st_mode & 0o7777
    member.uid, member.gid, member.mtime = status.st_uid, status.st_gid, status.st_mtime_ns
    if status.st_nlink > 1 and kind != "dir":
        first = linked.setdefault((status.st_dev, status.st_ino), name)
        if first != name:
            member.kind, member.link_name = "hardlink", first
            return member
    if kind == "reg":
        member.size = status.st_size
    elif kind == "symlink":
        member.link_name = os.readlink(path)  # noqa: PTH115 - bytes
    elif kind in ("char", "block"):
        member.dev_major, member.dev_minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    member.xattrs = _xattrs(path) or None
    return member


def _xattrs(path: bytes) -> dict[bytes, bytes]:
    try:
        names = [os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False)]
    except OSError:
        # Not every file system has them.
        return {}
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def _content(path: bytes, size: int) -> Iterator[bytes]:
    left = size
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - bytes
        while left and (piece := file.read(min(left, _PIECE))):
            left -= len(piece)
            yield piece
    if left:
        raise BuildError(f"{os.fsdecode(path)}: became {left} bytes shorter while it was read")
    if pad := padding(size):
        yield bytes(pad)
