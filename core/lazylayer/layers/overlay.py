"""Look up paths in trees that lie on each other, as overlayfs finds them; and merge such trees into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from lazylayer.api.tree import Entry, Tree, new_directory, number_inodes

__all__ = ["Found", "follow", "merge_trees", "names_in"]

_MAX_LINKS = 40


class Found(NamedTuple):
    """An entry, the number of the tree that it is in, 0 the lowest, and its path, which has no link in it."""

    tree: int
    entry: Entry
    path: bytes


_Seen = list[Found]
"""Directories of one name that lie on each other, the uppermost first; or one entry of another type."""


def follow(trees: Sequence[Tree], path: bytes) -> Found | None:
    """Return what is at `path`, symlinks followed as by a process whose root these trees are, or None.

    A dangling link is None, and so are a loop and a path through something that is not a directory. Of directories
    that lie on each other the uppermost is returned.

    :param trees: lowest first; a single tree, or a merged one, will do.
    """
    seen = _see(trees, path)
    return seen[0] if seen else None


def names_in(trees: Sequence[Tree], path: bytes) -> list[bytes]:
    """Return the names in the directory at `path`, as `follow` finds it; none if `path` is not a directory."""
    directory = _see(trees, path)
    names = {name: None for _, entry, _ in directory for name in entry.children or ()}
    return [name for name in names if _cut(_children(directory, name))]


def _see(trees: Sequence[Tree], path: bytes) -> _Seen:
    way = [_cut([Found(number, tree.root, b"/") for number, tree in reversed(list(enumerate(trees)))])]
    pending = list(reversed(path.split(b"/")))
    links = 0
    while pending and way[-1]:
        name = pending.pop()
        if way[-1][0].entry.children is None:
            return []
        if name in (b"", b"."):
            continue
        if name == b"..":
            del way[max(len(way) - 1, 1) :]
            continue
        child = _cut(_children(way[-1], name))
        if not child or not child[0].entry.is_symlink:
            way.append(child)
            continue
        target = child[0].entry.target
        links += 1
        if links > _MAX_LINKS or not target:
            return []
        if target.startswith(b"/"):
            del way[1:]
        pending.extend(reversed(target.split(b"/")))
    return way[-1]


def _children(directory: _Seen, name: bytes) -> list[Found]:
    path = directory[0].path.rstrip(b"/") + b"/" + name
    children = [(number, entry.children.get(name)) for number, entry, _ in directory if entry.children is not None]
    return [Found(number, child, path) for number, child in children if child is not None]


def _cut(entries: list[Found]) -> _Seen:
    """Return the visible ones of entries of one name: down to a whiteout, an opaque directory or a file."""
    seen: list[Found] = []
    for found in entries:
        if found.entry.whiteout or (found.entry.children is None and seen):
            break
        seen.append(found)
        if found.entry.children is None or found.entry.opaque:
            break
    return seen


def merge_trees(trees: Sequence[Tree]) -> Tree:
    """Return the tree that a container sees: `trees` on top of each other, lowest first.

    Whiteouts and opaque directories are applied and gone; `Entry.layer` says which tree an entry
    came from. A directory that an upper layer has only implicitly keeps its attributes from below.
    The given trees are not changed.
    """
    root = new_directory()
    for layer, tree in enumerate(trees):
        _merge_directory(root, tree.root, layer, {})
    _sort(root)
    return Tree(root, number_inodes(root))


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
                    known = target.children[name] = new_directory()
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
