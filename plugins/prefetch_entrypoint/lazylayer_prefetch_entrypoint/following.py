"""Follow the programs of one layer: know them by their names, and fetch what they need once a reader has one.

Imported when a layer is opened, so it imports nothing that takes time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lazylayer.api.tree import Entry

__all__ = ["ProgramLocality", "is_program"]

_EXECUTABLE = 0o111
_LEAST_PROGRAM = 256
"""Bytes. A smaller file needs no library: the headers that say so would not fit (System V ABI)."""
_LIBRARY = re.compile(rb"\.so(?:\.[0-9]|\Z)")
_MODULE = (b".py", b".pyc")


def is_program(name: bytes, entry: Entry) -> bool:
    """Return True for a program, a library or a Python module, by name, size and permissions."""
    if name.endswith(_MODULE):
        return True
    if entry.size < _LEAST_PROGRAM:
        return False
    return bool(entry.mode & _EXECUTABLE) or _LIBRARY.search(name) is not None


class ProgramLocality:
    """The programs of one layer: a `lazylayer.api.layers.Locality`.

    Set `follow` to a function that is told of each program which a reader begins to read, with path and entry.
    """

    def __init__(self) -> None:
        self.follow: Callable[[bytes, Entry], None] | None = None

    def follows(self, name: bytes, entry: Entry) -> bool:
        """Return True for a program."""
        return is_program(name, entry)

    def missed(self, path: bytes, entry: Entry) -> None:
        """Tell `follow` of a program, if there is one."""
        if self.follow is not None:
            self.follow(path, entry)
