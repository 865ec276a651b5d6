"""Which members of a layer are read together: small files of one kind in one directory, and all of a program.

Who reads one module of a package reads its others too, but not what a packer put next to them. And
who runs a program touches all over it, and does so in no order. Measured on the start of a container
whose Python imports numpy, over a link with 20 ms round trip and 200 Mbit/s, this takes two thirds of
the requests, and three quarters of the bytes, of fetching what follows in the blob.

Written once, then only read, from any thread.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Callable
from itertools import pairwise

from lazylayer.api.chunks import ChunkTable
from lazylayer.api.tree import Entry, Tree

__all__ = ["Siblings"]

_SMALL = 64 * 1024
"""Bytes, compressed. What is larger is seldom read because something beside it was: it costs more than it saves."""
_SEARCHED = 256
"""How far from a member its siblings are looked for, in members each way."""
_FOLLOWING = 2
"""How many members of a program are fetched with the one that is needed."""
_EXECUTABLE = 0o111
_LEAST_PROGRAM = 256
"""Bytes. Nothing that is smaller needs a library: the headers that say so would not fit (System V ABI)."""
_LIBRARY = re.compile(rb"\.so(\.[0-9][^/]*)?$")
_MODULE = (b".py", b".pyc")


class Siblings:
    """The siblings of every member of a layer. Takes 5 bytes for each member, and some 200 for each program."""

    def __init__(self, tree: Tree, table: ChunkTable) -> None:
        self._table = table
        self._families = array("I", bytes(array("I").itemsize * table.members))
        self._continues = bytearray(table.members)
        """1 where the next member goes on with the same program."""
        self._programs: dict[int, tuple[bytes, Entry]] = {}
        """Programs, libraries and modules with their paths, by their first chunk."""
        numbers: dict[tuple[int, bytes], int] = {}
        directories = [(b"/", tree.root)]
        while directories:
            path, directory = directories.pop()
            for name, entry in (directory.children or {}).items():
                if entry.children is not None:
                    directories.append((path + name + b"/", entry))
                    continue
                if entry.chunk_count and _is_program(name, entry):
                    self._programs[entry.first_chunk] = path + name, entry
                    self._join(entry)
                if entry.chunk_count == 1:
                    member = table.member_of(entry.first_chunk)
                    if table.member_range(member).size <= _SMALL:
                        key = directory.ino, os.path.splitext(name)[1]  # noqa: PTH122 - bytes
                        self._families[member] = numbers.setdefault(key, len(numbers) + 1)

    def around(self, member: int, budget: int, is_missing: Callable[[int], bool]) -> list[int]:
        """`member` and those to fetch with it, in blob order.

        Of the siblings that are missing those nearest in the blob, up to `budget` bytes altogether.
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

    def program_at(self, member: int) -> tuple[bytes, Entry] | None:
        """The program, library or Python module, with its path, that starts in `member`, or None."""
        return self._programs.get(self._table.chunks_of(member)[0])

    def _join(self, entry: Entry) -> None:
        members = [self._table.member_of(entry.first_chunk + each) for each in range(entry.chunk_count)]
        for member, following in pairwise(members):
            if following == member + 1:
                self._continues[member] = 1


def _is_program(name: bytes, entry: Entry) -> bool:
    if name.endswith(_MODULE):
        return True
    if entry.size < _LEAST_PROGRAM:
        return False
    return bool(entry.mode & _EXECUTABLE) or _LIBRARY.search(name) is not None
