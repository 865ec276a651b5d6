"""Write a directory tree, every attribute chosen, and pack it with GNU tar.

All names are bytes and relative to the tree's root, where every call starts, so that a name may be
as long as the kernel takes it in one call (4,095 bytes) wherever the tree lies.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

# 2020-09-13; each entry is one second younger than the one before it, so that no two are alike.
_FIRST_MTIME = 1_600_000_000


class TreeWriter:
    """Creates entries below an empty directory, in the order of the calls.

    Parents must have been created before (with `directory`). Needs root: owners, devices and
    trusted attributes are set as asked. Call `close()` at the end; it sets the directories' times,
    which creating their children has changed.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True)
        self.root = root
        self.names: list[bytes] = []
        """The entries in order of creation, as `write_tar` takes it."""
        self._root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        self._next_mtime = _FIRST_MTIME
        self._directory_mtimes: dict[bytes, int] = {}

    def close(self) -> None:
        """Set the directories' modification times and let go of the root."""
        for name, mtime in self._directory_mtimes.items():
            os.utime(name, ns=(mtime, mtime), dir_fd=self._root_fd)
        os.close(self._root_fd)

    def directory(
        self,
        name: bytes,
        *,
        mode: int = 0o755,
        owner: tuple[int, int] = (0, 0),
        xattrs: Mapping[str, bytes] | None = None,
        packed: bool = True,
    ) -> None:
        """Add a directory; `b"."` sets the root's attributes. Unless `packed`, the archive leaves it out."""
        if name != b".":
            os.mkdir(name, dir_fd=self._root_fd)
        self._finish(name, mode, owner, xattrs, None, packed=packed)

    def file(
        self,
        name: bytes,
        content: bytes = b"",
        *,
        mode: int = 0o644,
        owner: tuple[int, int] = (0, 0),
        xattrs: Mapping[str, bytes] | None = None,
        mtime_ns: int | None = None,
    ) -> None:
        """Add a regular file. `mtime_ns` is in nanoseconds since 1970."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=self._root_fd), "wb") as writer:
            writer.write(content)
        self._finish(name, mode, owner, xattrs, mtime_ns)

    def symlink(
        self,
        name: bytes,
        target: bytes,
        *,
        owner: tuple[int, int] = (0, 0),
        xattrs: Mapping[str, bytes] | None = None,
    ) -> None:
        """Add a symbolic link with this text."""
        os.symlink(target, name, dir_fd=self._root_fd)
        self._finish(name, None, owner, xattrs, None)

    def hardlink(self, name: bytes, target: bytes) -> None:
        """Another name of an entry that exists, whatever its type."""
        os.link(target, name, src_dir_fd=self._root_fd, dst_dir_fd=self._root_fd, follow_symlinks=False)
        self.names.append(name)

    def node(self, name: bytes, kind: int, *, device: tuple[int, int] = (0, 0), mode: int = 0o600) -> None:
        """Add a device or a FIFO: `kind` is stat.S_IFCHR, S_IFBLK or S_IFIFO, `device` major and minor."""
        os.mknod(name, kind | 0o600, os.makedev(*device), dir_fd=self._root_fd)
        self._finish(name, mode, (0, 0), None, None)

    def whiteout(self, name: bytes) -> None:
        """Hide `name` of the layers below: an empty file `.wh.NAME` beside it."""
        parent, slash, base = name.rpartition(b"/")
        self.file(parent + slash + b".wh." + base)

    def opaque(self, directory: bytes) -> None:
        """Hide all that the layers below have in `directory`: a file `.wh..wh..opq` in it."""
        self.file(directory + b"/.wh..wh..opq")

    def _finish(
        self,
        name: bytes,
        mode: int | None,
        owner: tuple[int, int],
        xattrs: Mapping[str, bytes] | None,
        mtime_ns: int | None,
        *,
        packed: bool = True,
    ) -> None:
        os.chown(name, *owner, dir_fd=self._root_fd, follow_symlinks=False)
        # After the owner, since a change of owner clears set-id bits and capabilities.
        if mode is not None:
            os.chmod(name, mode, dir_fd=self._root_fd)
        for key, value in (xattrs or {}).items():
            path = f"/proc/self/fd/{self._root_fd}/".encode() + name
            os.setxattr(path, key, value, follow_symlinks=False)
        mtime = self._next_mtime * 1_000_000_000 if mtime_ns is None else mtime_ns
        self._next_mtime += 1
        os.utime(name, ns=(mtime, mtime), dir_fd=self._root_fd, follow_symlinks=False)
        if stat.S_ISDIR(os.lstat(name, dir_fd=self._root_fd).st_mode):
            self._directory_mtimes[name] = mtime
        if packed:
            self.names.append(name)


def write_tar(
    archive: Path, root: Path, names: Iterable[bytes], form: Literal["pax", "gnu"], *, append: bool = False
) -> None:
    """Pack exactly these names of the tree, in this order, with GNU tar in its `pax` or `gnu` format.

    Extended attributes are packed in the `pax` format; the `gnu` one cannot hold them. With `append`
    the entries follow those that the archive has, also where these have the same names.
    """
    command = ["tar", "--append" if append else "--create", "--file", str(archive)]
    command += ["--directory", str(root), "--format", form, "--numeric-owner"]
    if form == "pax":
        # Without access and change times the archive is the same each time it is made.
        command += ["--pax-option", "exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"]
        command += ["--xattrs", "--xattrs-include=*"]
    command += ["--no-recursion", "--null", "--verbatim-files-from", "--files-from", "-"]
    subprocess.run(command, input=b"".join(name + b"\0" for name in names), check=True)
