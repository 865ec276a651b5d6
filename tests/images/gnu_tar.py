"""GNU tar's word on what layers hold: extract them, one alone or all on top of each other.

The names that are special in a layer (whiteouts, opaque markers) are dealt with here as the OCI image
specification (`layer.md`) and the kernel's overlayfs documentation say, without any of the
project's code. Needs root, and a file system that takes every owner, device and attribute.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lazylayer_testing.facts.trees import walk

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_OVERLAY_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


def extract_layer(archive: Path, directory: Path) -> frozenset[bytes]:
    """Extract one layer's tar archive as it is into a new directory.

    Returns the implicit directories, `b"."` among them when it is one: those that the archive has no
    entry of, only entries below them. They are 0755 root:root, and their times mean nothing.
    """
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    _extract(archive, directory)
    return _implicit_directories(archive)


def extract_for_overlay(archive: Path, directory: Path) -> frozenset[bytes]:
    """Extract one layer as overlayfs wants its lower directories; return the implicit directories.

    A whiteout becomes a 0/0 character device, unless the layer has an entry of that name: then the
    entry stays, marked opaque when it is a directory. An opaque marker becomes the attributes
    `trusted.overlay.opaque` and `user.overlay.opaque` of its directory.
    """
    implicit = extract_layer(archive, directory)
    with _Root(directory) as root:
        for name in [visit.name for visit in walk(directory) if visit.base.startswith(_WHITEOUT)]:
            parent, hidden = _split_whiteout(name)
            os.unlink(name, dir_fd=root.descriptor)
            if hidden is None:
                _mark_opaque(root.path(parent))
                continue
            kind = root.kind(hidden)
            if kind is None:
                os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=root.descriptor)
            elif kind == stat.S_IFDIR:
                _mark_opaque(root.path(hidden))
        _restore_times(root, _directory_times(archive))
    return implicit


def _mark_opaque(directory: bytes) -> None:
    for name in _OVERLAY_OPAQUE:
        os.setxattr(directory, name, b"y")


def apply_layers(archives: Sequence[Path], directory: Path) -> frozenset[bytes]:
    """Extract the layers, lowest first, on top of each other into a new directory.

    Whiteouts and opaque markers of a layer hide what the layers below it have, never its own
    entries, wherever in the archive they stand. A directory has the attributes of its highest entry
    that nothing hides. Returns the directories that no layer has an entry of, as `extract_layer`.
    """
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    times: dict[bytes, float | None] = {}
    with _Root(directory) as root:
        for archive in archives:
            scratch = directory.with_name(directory.name + ".layer")
            implicit = extract_layer(archive, scratch)
            _make_way(root, scratch, implicit)
            shutil.rmtree(scratch)
            times = {name: time for name, time in times.items() if root.kind(name) == stat.S_IFDIR}
            _extract(archive, directory, "--exclude=.wh.*")
            for name in implicit:
                times.setdefault(name, None)
            times |= _directory_times(archive)
            _restore_times(root, times)
    return frozenset(name for name, time in times.items() if time is None)


class _Root:
    """An open directory from which names of any length up to the kernel's limit are reached."""

    def __init__(self, directory: Path) -> None:
        self.descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)

    def __enter__(self) -> _Root:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def path(self, name: bytes) -> bytes:
        return b"/proc/self/fd/%d/%s" % (self.descriptor, name)

    def kind(self, name: bytes) -> int | None:
        """Return the type bits of the entry with this name, or None."""
        try:
            return stat.S_IFMT(os.lstat(name, dir_fd=self.descriptor).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def children(self, name: bytes) -> list[bytes]:
        with os.scandir(self.path(name)) as entries:
            return [entry.name for entry in entries]

    def remove(self, name: bytes) -> None:
        kind = self.kind(name)
        if kind == stat.S_IFDIR:
            shutil.rmtree(name, dir_fd=self.descriptor)
        elif kind is not None:
            os.unlink(name, dir_fd=self.descriptor)


def _extract(archive: Path, directory: Path, *options: str) -> None:
    command = ["tar", "--extract", "--file", str(archive), "--directory", str(directory)]
    command += ["--numeric-owner", "--same-owner", "--same-permissions", "--delay-directory-restore"]
    command += ["--xattrs", "--xattrs-include=*", "--warning=no-timestamp"]
    subprocess.run([*command, *options], check=True, umask=0o022)


def _implicit_directories(archive: Path) -> frozenset[bytes]:
    names = {name for name, _ in _entries(archive)}
    parents = {b"."}
    for name in names:
        parts = name.split(b"/")
        parents |= {b"/".join(parts[:count]) for count in range(1, len(parts))}
    return frozenset(parents - names)


def _directory_times(archive: Path) -> dict[bytes, float]:
    """Return the times, in seconds, of the directories that have entries in the archive."""
    return {name: float(member.mtime) for name, member in _entries(archive) if member.isdir()}


def _entries(archive: Path) -> list[tuple[bytes, tarfile.TarInfo]]:
    with tarfile.open(archive, encoding="utf-8", errors="surrogateescape") as members:
        return [(os.path.normpath(os.fsencode(member.name)), member) for member in members]


def _split_whiteout(name: bytes) -> tuple[bytes, bytes | None]:
    """Return a whiteout's directory, and the name that it hides there; None for an opaque marker, which hides all."""
    parent, slash, base = name.rpartition(b"/")
    if base == _OPAQUE:
        return parent or b".", None
    return parent or b".", parent + slash + base.removeprefix(_WHITEOUT)


def _make_way(root: _Root, layer: Path, implicit: frozenset[bytes]) -> None:
    """Remove from the layers applied so far what this extracted layer hides or replaces."""
    for visit in walk(layer):
        if visit.base.startswith(_WHITEOUT):
            parent, hidden = _split_whiteout(visit.name)
            if hidden is not None:
                root.remove(hidden)
            elif root.kind(parent) == stat.S_IFDIR:
                for child in root.children(parent):
                    root.remove(parent + b"/" + child)
            continue
        below = root.kind(visit.name)
        if below is None:
            continue
        if below != stat.S_IFDIR or not stat.S_ISDIR(visit.status.st_mode):
            root.remove(visit.name)
        elif visit.name not in implicit:
            # tar adds the new entry's attributes to those that the directory has.
            for key in os.listxattr(root.path(visit.name)):
                os.removexattr(root.path(visit.name), key)


def _restore_times(root: _Root, times: Mapping[bytes, float | None]) -> None:
    """Undo what creating and removing entries did to the times of their directories."""
    for name, time in times.items():
        if time is not None:
            os.utime(name, (time, time), dir_fd=root.descriptor)
