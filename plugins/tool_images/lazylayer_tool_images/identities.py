"""The users and groups of a recorded workload: those that the image names, and those that they are on the host."""

from __future__ import annotations

import copy
import subprocess
from typing import Protocol

import msgspec

from lazylayer.api.opened import OpenedFile
from lazylayer.api.tree import Entry, Tree
from lazylayer.errors import BuildError

__all__ = ["FIRST_ID", "IDS", "Files", "shift_owners", "user_ids", "user_namespaces_work"]

FIRST_ID = 0x6FFF0000
"""The host's ID of the workload's root: the last block of those that systemd sets apart for containers."""
IDS = 65536
"""IDs from `FIRST_ID` on that the workload has. Files of other owners belong to the overflow ID there."""

_MAX_FILE = 16 * 1024 * 1024


class Files(Protocol):
    """The files of an image."""

    def find(self, path: bytes) -> OpenedFile | None:
        """Return what a container would find at `path`, or None."""


def user_namespaces_work() -> bool:
    """Return True if this machine makes user namespaces for us."""
    try:
        done = subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def shift_owners(tree: Tree) -> Tree:
    """Return a copy of a tree in which the owners 0 to `IDS` are those from `FIRST_ID` on.

    Entries keep inode numbers, chunks and hard links, so that they can be read as before.
    """
    copies: dict[int, Entry] = {}

    def shifted(entry: Entry) -> Entry:
        known = copies.get(entry.ino)
        if known is None:
            known = copies[entry.ino] = copy.copy(entry)
            known.uid = FIRST_ID + entry.uid if entry.uid < IDS else entry.uid
            known.gid = FIRST_ID + entry.gid if entry.gid < IDS else entry.gid
        return known

    root = shifted(tree.root)
    stack = [root]
    while stack:
        directory = stack.pop()
        assert directory.children is not None
        directory.children = {name: shifted(entry) for name, entry in directory.children.items()}
        stack += [entry for entry in directory.children.values() if entry.children is not None]
    return msgspec.structs.replace(tree, root=root)


def user_ids(files: Files, user: str) -> tuple[int, int]:
    """Return the IDs of `user[:group]`, each a number or a name in the image's own files. Raises BuildError."""
    name, _, group = user.partition(":")
    uid, gid = 0, 0
    if name:
        uid, gid = (_number(name), 0) if name.isdecimal() else _look_up(files, "passwd", name, (2, 3))
    if group:
        gid = _number(group) if group.isdecimal() else _look_up(files, "group", group, (2, 2))[0]
    return uid, gid


def _look_up(files: Files, file: str, name: str, columns: tuple[int, int]) -> tuple[int, int]:
    # In the tree, not through the mount: a link of the image must not lead to files of this machine.
    found = files.find(f"/etc/{file}".encode())
    if found is None or not found.entry.is_file or found.entry.size > _MAX_FILE:
        raise BuildError(f"the image has no /etc/{file} that could say who {name!r} is; use numbers in its USER")
    for line in found.read(0, found.entry.size).decode(errors="replace").split("\n"):
        fields = line.split(":")
        if fields[0] == name and len(fields) > max(columns):
            return _number(fields[columns[0]]), _number(fields[columns[1]])
    raise BuildError(f"the image's /etc/{file} has no {name!r}; use numbers in its USER")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or int(text) >= 1 << 32:
        raise BuildError(f"invalid user or group ID {text[:40]!r} in the image")
    return int(text)
