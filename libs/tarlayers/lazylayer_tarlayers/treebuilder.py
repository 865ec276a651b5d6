"""Build the tree of a layer from the entries of its table of contents, in any order.

The rules of the OCI image specification apply (whiteouts, opaque directories), and those of tar: later entries
replace earlier ones, and missing parents are made.
"""

from __future__ import annotations

import stat
from typing import NamedTuple, NoReturn

from lazylayer.api.tree import Entry, Tree, clean_path, new_directory, number_inodes
from lazylayer.errors import FormatError

__all__ = ["OPAQUE_MARKER", "WHITEOUT_PREFIX", "Landmarks", "TreeBuilder"]

WHITEOUT_PREFIX = b".wh."
"""In an archive, a file with this in front of its name hides that name of the lower layers."""
OPAQUE_MARKER = b".wh..wh..opq"
"""In an archive, a file of this name hides everything that the lower layers have in its directory."""

_MAX_NAME = 255
_MAX_PATH = 16 * 1024
_MAX_IMPLICIT_DIRECTORIES = 1_000_000


class Landmarks(NamedTuple):
    """The names of files in a layer's root by which a format marks what to prefetch. They are not shown."""

    prefetch: bytes
    """The file behind everything that should be fetched before first use."""
    no_prefetch: bytes
    """The file of a layer of which nothing should be prefetched."""


class _PendingLink(Entry, gc=False):
    """A placeholder for a hard link until its `target` is known."""

    followed: bool = False
    resolved: Entry | None = None


class TreeBuilder:
    """A builder of one `Tree` from entries in archive order. Used by one thread, once.

    `landmarks` are the format's, if it has any: files of these names in the root are not shown.

    Time and memory are linear in what is added, whatever an archive says: a link chain is followed once, and an
    archive that needs too many implicit parent directories is rejected.

    A hard link whose target was not added yet stands in the tree as a placeholder, so that an entry that replaces
    it, or lies below it, is treated as for any other file.
    """

    def __init__(
        self, landmarks: Landmarks | None = None, max_implicit_directories: int = _MAX_IMPLICIT_DIRECTORIES
    ) -> None:
        self._landmarks = landmarks
        self._root = new_directory()
        self._implicit = 0
        self._max_implicit = max_implicit_directories
        # Archives list a directory's entries together, so the last directory is nearly always the next.
        self._head: bytes = b""
        self._siblings = _children(self._root)
        self._pending_links: list[tuple[bytes, _PendingLink]] = []

    def add(self, path: bytes, entry: Entry) -> None:
        """Put `entry` at `path`; a later entry replaces an earlier one at the same path.

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
        """Make `path` a second name of `target`, which may be added later, or be a link itself."""
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
        """Return the finished tree. Raises FormatError for hard links that lead nowhere or to directories."""
        self._resolve_links()
        children = _children(self._root)
        prefetch, no_prefetch = None, False
        if self._landmarks is not None:
            prefetch = children.pop(self._landmarks.prefetch, None)
            no_prefetch = children.pop(self._landmarks.no_prefetch, None) is not None
        _apply_whiteouts(self._root)
        inodes = number_inodes(self._root)
        return Tree(self._root, inodes, prefetch if prefetch and prefetch.is_file else None, no_prefetch)

    def _enter(self, path: bytes) -> dict[bytes, Entry]:
        """Return the entries of the directory at `path`, which is made, with its parents, if it is missing."""
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
        if self._implicit > self._max_implicit:
            raise FormatError(f"more than {self._max_implicit} directories have no entry of their own")
        return new_directory()

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
    """Copy the attributes of a new entry to the existing directory of that name, which keeps its children."""
    directory.mode, directory.uid, directory.gid = entry.mode, entry.uid, entry.gid
    directory.mtime, directory.xattrs, directory.implicit = entry.mtime, entry.xattrs, False


def _refuse_name(path: bytes, name: bytes) -> NoReturn:
    if b"\0" in name:
        raise FormatError(f"a name holds a NUL byte: {path[:80]!r}")
    raise FormatError(f"a name of {len(name)} bytes is longer than {_MAX_NAME}: {name[:80]!r}…")


def _sort(children: dict[bytes, Entry]) -> None:
    """Sort a directory in place: a sorted copy would take as much memory again."""
    names = sorted(children)
    entries = [children[name] for name in names]
    children.clear()
    children.update(zip(names, entries, strict=True))


def _apply_whiteouts(root: Entry) -> None:
    """Turn `.wh.` names into whiteout entries and opaque marks, and sort every directory."""
    stack = [root]
    while stack:
        directory = stack.pop()
        children = directory.children
        assert children is not None
        for name in [name for name in children if name.startswith(WHITEOUT_PREFIX)]:
            mark = children.pop(name)
            if name[len(WHITEOUT_PREFIX) :] in (b".", b".."):
                raise FormatError(f"a whiteout of {name[len(WHITEOUT_PREFIX) :]!r}, which is not a name")
            if name == OPAQUE_MARKER:
                directory.opaque = True
            elif not name.startswith(WHITEOUT_PREFIX + WHITEOUT_PREFIX) and len(name) > len(WHITEOUT_PREFIX):
                sibling = children.get(name[len(WHITEOUT_PREFIX) :])
                if sibling is None:
                    children[name[len(WHITEOUT_PREFIX) :]] = Entry(mode=stat.S_IFCHR, mtime=mark.mtime, whiteout=True)
                elif sibling.children is not None:
                    # The layer's own directory stays, but nothing of the layers below shows in it.
                    sibling.opaque = sibling.replacing = True
        _sort(children)
        stack.extend(child for child in children.values() if child.children is not None)
