"""Check whether this machine can mount EROFS on a served file, by a trial."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from lazylayer.api.mounting import Missing, VirtualDirectory
from lazylayer.api.tree import Entry, Tree, new_directory, number_inodes
from lazylayer.errors import LayerError, LazylayerError
from lazylayer_frontend_erofs.image import Image
from lazylayer_frontend_erofs.machine import what_machine_lacks
from lazylayer_frontend_erofs.options import Options
from lazylayer_frontend_erofs.serving import serve_image
from lazylayer_frontend_erofs.writer import write_metadata

__all__ = ["what_is_missing"]

_GOOD, _BAD = b"good", b"bad"


def what_is_missing() -> Missing | None:
    """Return what this machine lacks, or None.

    The trial mounts a tiny image, hidden from everybody, and checks that it can be read and that a
    failing read fails: a kernel that showed zeros instead would show wrong bytes of a layer.
    """
    if missing := what_machine_lacks():
        return missing
    try:
        return _try()
    except (OSError, LazylayerError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        if not _has_erofs():
            return Missing(f"the kernel has no EROFS ({reason})", "load its module (modprobe erofs)")
        remedy = "give the process CAP_SYS_ADMIN, and use a kernel with CONFIG_EROFS_FS_BACKED_BY_FILE"
        return Missing(f"a trial mount failed: {reason}", remedy)


class _TrialTree:
    """A tree of two files, of which one cannot be read."""

    source = "trial"
    identity = ""
    complete = False

    def __init__(self) -> None:
        self.virtual: dict[bytes, VirtualDirectory] = {}
        root = new_directory()
        root.children = {name: Entry(stat.S_IFREG | 0o400, size=len(name)) for name in (_BAD, _GOOD)}
        self.tree = Tree(root, number_inodes(root))

    def when_complete(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Do nothing: the trial is never complete."""
        del callback
        return lambda: None

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """Return the good file's name; fail for the bad one."""
        if entry.size == len(_BAD):
            raise LayerError("this read fails")
        return _GOOD[offset : offset + size]


def _try() -> Missing | None:
    tree = _TrialTree()
    server, mounted = serve_image(Image(tree, write_metadata(tree.tree)), tree.source, Options())
    try:
        if _read(mounted, _GOOD) != _GOOD:
            return Missing("a trial mount shows wrong bytes", "use frontend_fuse")
        try:
            _read(mounted, _BAD)
        except OSError as error:
            if error.errno == errno.EIO:
                return None
            raise
        return Missing("this kernel takes a failed read for zeros", "update it, or use frontend_fuse")
    finally:
        os.close(mounted)
        server.ended.wait(1)


def _read(mounted: int, name: bytes) -> bytes:
    descriptor = os.open(name, os.O_RDONLY, dir_fd=mounted)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def _has_erofs() -> bool:
    return "\terofs\n" in Path("/proc/filesystems").read_text()
