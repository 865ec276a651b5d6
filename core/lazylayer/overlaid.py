"""Paths looked up in trees that lie on each other, as overlayfs would find them, without merging them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lazylayer.tree import Entry, Tree

__all__ = ["Found", "follow"]

_MAX_LINKS = 40


class Found(NamedTuple):
    """An entry, and the number of the tree that it is in, 0 the lowest."""

    tree: int
    entry: Entry


_Directory = list[Found]
"""The directories of one name that lie on each other, the uppermost first; or one entry that is no directory."""


def follow(trees: Sequence[Tree], path: bytes) -> Found | None:
    """What is at `path`, symlinks followed as a process would whose root these trees are, or None.

    :param trees: lowest first; one tree by itself, or one that was merged, will do.

    A link that leads nowhere is None, and so is a loop.
    """
    uppermost_first = [Found(number, tree.root) for number, tree in reversed(list(enumerate(trees)))]
    directories = [_cut(uppermost_first)]
    pending = list(reversed(path.split(b"/")))
    links = 0
    while pending:
        name = pending.pop()
        if name in (b"", b"."):
            continue
        if name == b"..":
            if len(directories) > 1:
                directories.pop()
            continue
        child = _cut(_children(directories[-1], name))
        if not child:
            return None
        target = child[0].entry.target if child[0].entry.is_symlink else b""
        if not target:
            directories.append(child)
            continue
        links += 1
        if links > _MAX_LINKS:
            return None
        if target.startswith(b"/"):
            del directories[1:]
        pending.extend(reversed(target.split(b"/")))
    return directories[-1][0] if directories[-1] else None


def _children(directory: _Directory, name: bytes) -> list[Found]:
    found = []
    for number, entry in directory:
        child = entry.children.get(name) if entry.children is not None else None
        if child is not None:
            found.append(Found(number, child))
    return found


def _cut(entries: list[Found]) -> _Directory:
    """What is seen of entries of one name: down to a whiteout, an opaque directory, or what is no directory."""
    seen: list[Found] = []
    for found in entries:
        if found.entry.whiteout or (found.entry.children is None and seen):
            break
        seen.append(found)
        if found.entry.children is None or found.entry.opaque:
            break
    return seen
