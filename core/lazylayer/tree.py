"""A layer's metadata tree, and the merge of several layers into one.

A tree is made of `Entry` objects, one per inode: names live in the directory that holds them, so a
hard link is one entry under two names. `TreeBuilder` makes a tree from a layer's list of paths and
applies the rules of the OCI image specification (whiteouts, opaque directories) and of tar (later
entries replace earlier ones, missing parents are made). Once finished a tree never changes and may
be read from any thread.

Paths and names are bytes, as in the kernel. A path from an archive is cleaned against the root, so
it cannot name anything outside the tree.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from typing import NoReturn

import msgspec

from lazylayer.errors import FormatError

__all__ = [
    "LANDMARKS",
    "NO_PREFETCH_LANDMARK",
    "OPAQUE_MARKER",
    "OPAQUE_XATTR",
    "PREFETCH_LANDMARK",
    "WHITEOUT_PREFIX",
    "Entry",
    "Tree",
    "TreeBuilder",
    "clean_path",
    "merge_trees",
]

PREFETCH_LANDMARK = b".prefetch.landmark"
NO_PREFETCH_LANDMARK = b".no.prefetch.landmark"
LANDMARKS = (PREFETCH_LANDMARK, NO_PREFETCH_LANDMARK)
"""Files in a layer's root that mark the end of what is prefetched; they are not shown."""

OPAQUE_XATTR = b"trusted.overlay.opaque"
"""What overlayfs looks for on a directory that hides the lower layers' directory; its value is `y`."""

WHITEOUT_PREFIX = b".wh."
"""In an archive, a file with this in front of its name hides that name of the lower layers."""
OPAQUE_MARKER = b".wh..wh..opq"
"""In an archive, a file of this name hides everything that the lower layers have in its directory."""

_MAX_NAME = 255
_MAX_PATH = 16 * 1024
_MAX_IMPLICIT_DIRECTORIES = 1_000_000
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
    """Where a symlink points."""
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
        """Whether this is a directory."""
        return self.children is not None

    @property
    def is_file(self) -> bool:
        """Whether this is a regular file."""
        return self.mode & _S_IFMT == stat.S_IFREG

    @property
    def is_symlink(self) -> bool:
        """Whether this is a symbolic link."""
        return self.mode & _S_IFMT == stat.S_IFLNK


class Tree(msgspec.Struct, frozen=True):
    """A finished tree: its root directory, and how many inodes it has."""

    root: Entry
    inodes: int
    prefetch_landmark: Entry | None = None
    """The entry of `.prefetch.landmark`, where the layer has one."""
    no_prefetch: bool = False
    """Whether the layer has `.no.prefetch.landmark`."""

    def lookup(self, path: bytes) -> Entry | None:
        """The entry at `path` (cleaned against the root), symlinks not followed, or None."""
        entry: Entry | None = self.root
        for name in clean_path(path).split(b"/"):
            if not name:
                continue
            if entry is None or entry.children is None:
                return None
            entry = entry.children.get(name)
        return entry

    def walk(self) -> Iterator[tuple[bytes, Entry]]:
        """Every path with its entry, parents before children, siblings by name; the root is `b""`."""
        stack: list[tuple[bytes, Entry]] = [(b"", self.root)]
        while stack:
            path, entry = stack.pop()
            yield path, entry
            if entry.children:
                prefix = path + b"/" if path else b""
                stack.extend((prefix + name, entry.children[name]) for name in reversed(entry.children))


def clean_path(path: bytes) -> bytes:
    """`path` relative to the root, without empty, `.` and `..` parts; `..` never leaves the root."""
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


def _new_directory() -> Entry:
    return Entry(mode=stat.S_IFDIR | 0o755, children={}, implicit=True)


class _PendingLink(Entry, gc=False):
    """Stands for a hard link until what it leads to, `target`, is known."""

    followed: bool = False
    resolved: Entry | None = None


class TreeBuilder:
    """Makes a `Tree` from entries in archive order. Used by one thread, once.

    Time and memory are linear in what is added, whatever an archive says: a link chain is followed
    once, and an archive that makes us invent too many parent directories is refused.

    A hard link whose target is not there yet stands in the tree as a placeholder, so that whatever
    replaces it or lies below it is treated as for any other file.
    """

    def __init__(self) -> None:
        self._root = _new_directory()
        self._implicit = 0
        # Archives list a directory's entries together, so the last directory is nearly always the next.
        self._head: bytes = b""
        self._siblings = _children(self._root)
        self._pending_links: list[tuple[bytes, _PendingLink]] = []

    def add(self, path: bytes, entry: Entry) -> None:
        """Puts `entry` at `path`; a later entry replaces an earlier one at the same path.

        A directory that replaces a directory keeps its children. Raises FormatError for names that
        no file system could show, and for a parent that is not a directory.
        """
        path = clean_path(path)
        if not path:
            if entry.children is None:
                raise FormatError("the root of the tree is not a directory")
            _describe(self._root, entry)
            return
        head, _, name = path.rpartition(b"/")
        if len(name) > _MAX_NAME or b"\0" in name:
            _refuse_name(path, name)
        siblings = self._siblings if head == self._head else self._enter(head)
        known = siblings.get(name)
        if known is not None and known.children is not None:
            if entry.children is not None:
                _describe(known, entry)
                return
            # The remembered directory may be this one, or lie in it.
            self._head, self._siblings = b"", _children(self._root)
        siblings[name] = entry

    def link(self, path: bytes, target: bytes) -> None:
        """Makes `path` a second name of `target`, which may be added later, or be a link itself."""
        path, target = clean_path(path), clean_path(target)
        known = self._find(target)
        if isinstance(known, _PendingLink):
            target = known.target
        elif known is not None and known.children is None:
            self.add(path, known)
            return
        placeholder = _PendingLink(mode=0, target=target)
        self.add(path, placeholder)
        self._pending_links.append((path, placeholder))

    def finish(self) -> Tree:
        """The finished tree. Raises FormatError for hard links that lead nowhere or to directories."""
        self._resolve_links()
        children = _children(self._root)
        prefetch = children.get(PREFETCH_LANDMARK)
        no_prefetch = NO_PREFETCH_LANDMARK in children
        for landmark in LANDMARKS:
            children.pop(landmark, None)
        _apply_whiteouts(self._root)
        inodes = _number(self._root)
        return Tree(self._root, inodes, prefetch if prefetch and prefetch.is_file else None, no_prefetch)

    def _enter(self, path: bytes) -> dict[bytes, Entry]:
        """The entries of the directory at `path`, which is made, with its parents, if it is not there."""
        if len(path) > _MAX_PATH:
            raise FormatError(f"a path of {len(path)} bytes is longer than {_MAX_PATH}: {path[:80]!r}…")
        children = _children(self._root)
        for name in path.split(b"/") if path else ():
            child = children.get(name)
            if child is None:
                child = children[name] = self._new_implicit_directory(path, name)
            elif child.children is None:
                raise FormatError(f"{path!r}: {name!r} is not a directory")
            children = _children(child)
        self._head, self._siblings = path, children
        return children

    def _new_implicit_directory(self, path: bytes, name: bytes) -> Entry:
        if len(name) > _MAX_NAME or b"\0" in name:
            _refuse_name(path, name)
        self._implicit += 1
        if self._implicit > _MAX_IMPLICIT_DIRECTORIES:
            raise FormatError(f"more than {_MAX_IMPLICIT_DIRECTORIES} directories have no entry of their own")
        return _new_directory()

    def _find(self, path: bytes) -> Entry | None:
        head, _, name = path.rpartition(b"/")
        if head == self._head:
            return self._siblings.get(name)
        entry: Entry | None = self._root
        for part in path.split(b"/"):
            if entry is None or entry.children is None:
                return None
            entry = entry.children.get(part)
        return entry

    def _resolve_links(self) -> None:
        for path, placeholder in self._pending_links:
            if self._find(path) is placeholder:
                self.add(path, self._target_of(path, placeholder))
        self._pending_links.clear()

    def _target_of(self, path: bytes, placeholder: _PendingLink) -> Entry:
        chain: list[_PendingLink] = []
        entry: Entry | None = placeholder
        while isinstance(entry, _PendingLink) and entry.resolved is None:
            if entry.followed:
                raise FormatError(f"hard link {path!r} leads back to itself")
            entry.followed = True
            chain.append(entry)
            entry = self._find(entry.target)
        if isinstance(entry, _PendingLink):
            entry = entry.resolved
        target = chain[-1].target if chain else placeholder.target
        if entry is None:
            raise FormatError(f"hard link {path!r} leads to {target!r}, which is not in the layer")
        if entry.children is not None:
            raise FormatError(f"hard link {path!r} leads to the directory {target!r}")
        for link in chain:
            link.resolved = entry
        return entry


def _children(directory: Entry) -> dict[bytes, Entry]:
    assert directory.children is not None
    return directory.children


def _describe(directory: Entry, entry: Entry) -> None:
    """Gives an existing directory the attributes of a new entry for it; its children stay."""
    directory.mode, directory.uid, directory.gid = entry.mode, entry.uid, entry.gid
    directory.mtime, directory.xattrs, directory.implicit = entry.mtime, entry.xattrs, False


def _refuse_name(path: bytes, name: bytes) -> NoReturn:
    if b"\0" in name:
        raise FormatError(f"a name holds a NUL byte: {path[:80]!r}")
    raise FormatError(f"a name of {len(name)} bytes is longer than {_MAX_NAME}: {name[:80]!r}…")


def _apply_whiteouts(root: Entry) -> None:
    """Turns `.wh.` names into whiteout entries and opaque marks, and sorts every directory."""
    stack = [root]
    while stack:
        directory = stack.pop()
        children = directory.children
        assert children is not None
        for name in [name for name in children if name.startswith(WHITEOUT_PREFIX)]:
            mark = children.pop(name)
            if name == OPAQUE_MARKER:
                directory.opaque = True
            elif not name.startswith(WHITEOUT_PREFIX + WHITEOUT_PREFIX) and len(name) > len(WHITEOUT_PREFIX):
                sibling = children.get(name[len(WHITEOUT_PREFIX) :])
                if sibling is None:
                    children[name[len(WHITEOUT_PREFIX) :]] = Entry(mode=stat.S_IFCHR, mtime=mark.mtime, whiteout=True)
                elif sibling.children is not None:
                    # The layer's own directory stays, but nothing of the layers below shows in it.
                    sibling.opaque = sibling.replacing = True
        directory.children = {name: children[name] for name in sorted(children)}
        stack.extend(child for child in children.values() if child.children is not None)


def _number(root: Entry) -> int:
    """Gives every inode its number and link count; returns how many there are."""
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


def merge_trees(trees: Sequence[Tree]) -> Tree:
    """The tree that a container sees: `trees` on top of each other, lowest first.

    Whiteouts and opaque directories are applied and gone; `Entry.layer` says which tree an entry
    came from. A directory that an upper layer has only implicitly keeps its attributes from below.
    The given trees are not changed.
    """
    root = _new_directory()
    for layer, tree in enumerate(trees):
        _merge_directory(root, tree.root, layer, {})
    _sort(root)
    return Tree(root, _number(root))


def _merge_directory(below: Entry, above: Entry, layer: int, copies: dict[int, Entry]) -> None:
    stack = [(below, above)]
    while stack:
        target, upper = stack.pop()
        assert target.children is not None and upper.children is not None
        if upper.opaque:
            target.children.clear()
        if not upper.implicit:
            target.mode, target.uid, target.gid = upper.mode, upper.uid, upper.gid
            target.mtime, target.xattrs, target.implicit = upper.mtime, upper.xattrs, False
        for name, child in upper.children.items():
            if child.whiteout:
                target.children.pop(name, None)
            elif child.children is None:
                target.children[name] = _copy(child, layer, copies)
            else:
                known = target.children.get(name)
                if known is None or known.children is None or child.replacing:
                    known = target.children[name] = _new_directory()
                    known.layer = layer
                stack.append((known, child))


def _copy(entry: Entry, layer: int, copies: dict[int, Entry]) -> Entry:
    copy = copies.get(id(entry))
    if copy is None:
        copy = copies[id(entry)] = msgspec.structs.replace(entry, layer=layer, ino=0)
    return copy


def _sort(root: Entry) -> None:
    stack = [root]
    while stack:
        directory = stack.pop()
        children = directory.children
        assert children is not None
        directory.children = {name: children[name] for name in sorted(children)}
        stack.extend(child for child in children.values() if child.children is not None)
