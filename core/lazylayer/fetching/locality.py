"""Know which members of a layer are read together: small files of one kind in one directory, and followed files.

A reader of one module of a package reads its others too, but not what a packer put next to them. A program is
touched all over, in no order; which files are such, policies know (`lazylayer.api.layers.Locality`). Measured
on the start of a container whose Python imports numpy, over a link with 20 ms round trip and 200 Mbit/s, this
takes two thirds of the requests, and three quarters of the bytes, of fetching what follows in the blob.

Written once, then only read, from any thread.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from lazylayer.api.chunks import ChunkTable
from lazylayer.api.layers import Locality
from lazylayer.api.tree import Entry, Tree

__all__ = ["Followed", "Siblings"]

_SMALL = 64 * 1024
"""Bytes, compressed. A larger file is seldom read because of one beside it: it costs more than it saves."""
_SEARCHED = 256
"""Distance from a member at which its siblings are looked for, in members each way."""
_FOLLOWING = 2
"""Members of a followed file to fetch with the one that is needed."""


class Followed(NamedTuple):
    """A file that policies follow."""

    by: Sequence[Locality]
    path: bytes
    entry: Entry


class Siblings:
    """The siblings of every member of a layer. Takes 5 bytes for each member, and some 200 for each followed file."""

    def __init__(self, tree: Tree, table: ChunkTable, localities: Sequence[Locality] = ()) -> None:
        self._table = table
        self._localities = localities
        self._families = array("I", bytes(array("I").itemsize * table.members))
        self._continues = bytearray(table.members)
        """1 where the next member goes on with the same followed file."""
        self._followed: dict[int, Followed] = {}
        """By first chunk."""
        numbers: dict[tuple[int, bytes], int] = {}
        directories = [(b"/", tree.root)]
        while directories:
            path, directory = directories.pop()
            for name, entry in (directory.children or {}).items():
                if entry.children is not None:
                    directories.append((path + name + b"/", entry))
                    continue
                if entry.chunk_count:
                    self._follow(path, name, entry)
                if entry.chunk_count == 1:
                    member = table.member_of(entry.first_chunk)
                    if table.member_range(member).size <= _SMALL:
                        key = directory.ino, os.path.splitext(name)[1]  # noqa: PTH122 - bytes
                        self._families[member] = numbers.setdefault(key, len(numbers) + 1)

    def around(self, member: int, budget: int, is_missing: Callable[[int], bool]) -> list[int]:
        """Return `member` and the members to fetch with it, in blob order.

        Of its missing siblings those nearest in the blob come along, up to `budget` bytes altogether.
        """
        wanted = [member]
        while self._continues[wanted[-1]] and len(wanted) <= _FOLLOWING and is_missing(wanted[-1] + 1):
            wanted.append(wanted[-1] + 1)
        family = self._families[member]
        if not family:
            return wanted
        budget -= self._table.member_range(member).size
        for distance in range(1, _SEARCHED):
            for sibling in (member + distance, member - distance):
                if 0 <= sibling < len(self._families) and self._families[sibling] == family and is_missing(sibling):
                    budget -= self._table.member_range(sibling).size
                    if budget < 0:
                        return sorted(wanted)
                    wanted.append(sibling)
        return sorted(wanted)

    def followed_at(self, member: int) -> Followed | None:
        """Return the followed file that starts in `member`, or None."""
        return self._followed.get(self._table.chunks_of(member)[0])

    def _follow(self, path: bytes, name: bytes, entry: Entry) -> None:
        followers = [locality for locality in self._localities if locality.follows(name, entry)]
        if not followers:
            return
        by = self._localities if len(followers) == len(self._localities) else followers
        self._followed[entry.first_chunk] = Followed(by, path + name, entry)
        members = [self._table.member_of(entry.first_chunk + each) for each in range(entry.chunk_count)]
        for member, following in pairwise(members):
            if following == member + 1:
                self._continues[member] = 1
