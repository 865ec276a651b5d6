"""A layer's metadata tree.

A tree is made of `Entry` objects, one per inode: names live in the directory that holds them, so a
hard link is one entry under two names. Formats make trees with `lazylayer_tarlayers.treebuilder`, which
applies the rules of archives. Once finished a tree never changes and may be read from any thread.

Paths and names are bytes, as in the kernel. A path from an archive is cleaned against the root, so
it cannot name anything outside the tree.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

import msgspec

__all__ = [
    "OPAQUE_XATTRS",
    "Entry",
    "Tree",
    "clean_path",
    "new_directory",
    "number_inodes",
]

OPAQUE_XATTRS = (b"trusted.overlay.opaque", b"user.overlay.opaque")
"""The marks, with the value `y`, of a directory that hides the lower layers' directory.

overlayfs looks for the second where it is mounted with `userxattr`, as in a user namespace.
"""

_SUSPECT_STARTS = (b"", b".", b"/")
_S_IFMT = 0o170000


class Entry(msgspec.Struct, gc=False):
    """One inode of a tree.

    `mode` is the full `st_mode`; `mtime` is in nanoseconds since 1970; `rdev` as `os.makedev` makes
    it. `size` is the file's size in bytes, or a symlink's length. The file's data are the chunks
    `first_chunk` to `first_chunk + chunk_count - 1` of the chunk table of its layer, which is
    number `layer` in a merged tree.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    rdev: int = 0
    target: bytes = b""
    """The target of a symlink."""
    xattrs: dict[bytes, bytes] | None = None
    children: dict[bytes, Entry] | None = None
    """A directory's entries by name, sorted by name; None for everything else."""
    first_chunk: int = 0
    chunk_count: int = 0
    nlink: int = 1
    ino: int = 0
    """Unique in its tree, from 1 (the root) on, and the same each time the tree is made."""
    layer: int = 0
    opaque: bool = False
    """A directory that hides what the directory of the same name in lower layers holds."""
    replacing: bool = False
    """An opaque directory that hides that directory's attributes too: its layer has a whiteout of it."""
    whiteout: bool = False
    """Shown as a character device 0/0: overlayfs hides the name of lower layers."""
    implicit: bool = False
    """A directory that no entry described; it was made because something lies in it."""

    @property
    def is_directory(self) -> bool:
        """True for a directory."""
        return self.children is not None

    @property
    def is_file(self) -> bool:
        """True for a regular file."""
        return self.mode & _S_IFMT == stat.S_IFREG

    @property
    def is_symlink(self) -> bool:
        """True for a symbolic link."""
        return self.mode & _S_IFMT == stat.S_IFLNK


class Tree(msgspec.Struct, frozen=True):
    """A finished tree: its root directory, and how many inodes it has."""

    root: Entry
    inodes: int
    prefetch_landmark: Entry | None = None
    """The landmark behind everything that should be fetched before first use, if the layer has one."""
    no_prefetch: bool = False
    """The layer has a landmark that says to prefetch nothing."""

    def lookup(self, path: bytes) -> Entry | None:
        """Return the entry at `path` (cleaned against the root), symlinks not followed, or None."""
        entry: Entry | None = self.root
        for name in clean_path(path).split(b"/"):
            if not name:
                continue
            if entry is None or entry.children is None:
                return None
            entry = entry.children.get(name)
        return entry

    def walk(self) -> Iterator[tuple[bytes, Entry]]:
        """Yield every path with its entry, parents before children, siblings by name; the root is `b""`."""
        stack: list[tuple[bytes, Entry]] = [(b"", self.root)]
        while stack:
            path, entry = stack.pop()
            yield path, entry
            if entry.children:
                prefix = path + b"/" if path else b""
                stack.extend((prefix + name, entry.children[name]) for name in reversed(entry.children))


def clean_path(path: bytes) -> bytes:
    """Return `path` relative to the root, without empty, `.` and `..` parts; `..` never leaves the root."""
    if path[-1:] == b"/":
        path = path.rstrip(b"/")
    if path[:1] not in _SUSPECT_STARTS and b"/." not in path and b"//" not in path:
        return path
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if parts:
                parts.pop()
        elif part and part != b".":
            parts.append(part)
    return b"/".join(parts)


def new_directory() -> Entry:
    """Return an empty directory that no entry describes."""
    return Entry(mode=stat.S_IFDIR | 0o755, children={}, implicit=True)


def number_inodes(root: Entry) -> int:
    """Set the number and link count of every inode, and return how many there are."""
    number = 0
    stack = [root]
    while stack:
        entry = stack.pop()
        if entry.ino:
            entry.nlink += 1
            continue
        number += 1
        entry.ino = number
        entry.nlink = 1
        if entry.children:
            below = list(entry.children.values())
            below.reverse()
            entry.nlink = 2 + sum([child.children is not None for child in below])
            stack += below
        elif entry.children is not None:
            entry.nlink = 2
    return number
