"""The two mounts of an image: FUSE's, of the one file, which stays hidden, and EROFS on that file.

FUSE's mount is never attached to a directory. EROFS opens the file and keeps it open, so the
mount lives as long as EROFS does and goes with it; a server sees that by the end of its /dev/fuse.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from lazylayer_frontends import mountcalls

__all__ = ["CLONE_FS", "mount_erofs", "mount_file"]

CLONE_FS, CLONE_FILES = 0x200, 0x400

_CLOSE_RANGE = 436
"""The number of the system call, the same on all machines but Alpha."""
_LAST_DESCRIPTOR = 2**31 - 1
_MESSAGE = 16


def mount_file(descriptor: int, *, max_read: int) -> int:
    """Make the FUSE mount of one file that is served on `descriptor`, an open /dev/fuse.

    Returns a descriptor of the mount. Raises OSError.
    """
    return mountcalls.create(
        "fuse",
        [
            ("source", "lazylayer"),
            ("subtype", "lazylayer-image"),
            ("fd", str(descriptor)),
            ("rootmode", "100400"),
            ("user_id", str(os.geteuid())),
            ("group_id", str(os.getegid())),
            ("max_read", str(max_read)),
        ],
    )


def mount_erofs(path: str, source: str, *, direct: bool) -> int:
    """Make an EROFS mount of the image at `path`, and call it `source` in the kernel's table of mounts.

    With `direct`, data go from the file to EROFS's page cache without a stay in the file's own, where
    the kernel can do that. Returns a descriptor of the mount. Raises OSError.
    """
    if direct:
        try:
            return _with_name(path, source, [("directio", None)])
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    return _with_name(path, source, [])


def _with_name(path: str, source: str, options: list[tuple[str, str | None]]) -> int:
    """Mount by way of a symlink named `source`: the kernel shows the path that EROFS was mounted from."""
    directory = tempfile.mkdtemp(prefix="lazylayer-erofs-")
    try:
        name = _as_path(source)
        link = Path(directory, name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
        return _apart(directory, lambda: _create(name, options))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _create(source: str, options: list[tuple[str, str | None]]) -> int:
    # Has the kernel ask for the file's size: a direct read believes the one that it knows, which is 0 at first.
    os.stat(source)  # noqa: PTH116 - may wait, see below
    return mountcalls.create("erofs", [("source", source), *options])


def _as_path(source: str) -> str:
    """`source` as a relative path that leads nowhere else."""
    parts = [part[:200] for part in source.split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "lazylayer"


def _apart(directory: str, action: Callable[[], int]) -> int:
    """Call `action` in a thread with a working directory and descriptors of its own; return its descriptor.

    The thread may wait for an answer of this process, and cannot be killed until it comes, or the last
    descriptor of the /dev/fuse is closed that it should come from. A thread with that open would keep a
    killed process from ending, forever.
    """
    ours, theirs = socket.socketpair()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_FS | CLONE_FILES) != 0:
                raise OSError(ctypes.get_errno(), "a thread cannot have descriptors of its own")
            _close_all_but(theirs.fileno())
            os.chdir(directory)
            socket.send_fds(theirs, [b"mounted"], [action()])
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            failures.append(error)

    with ours, theirs:
        thread = threading.Thread(target=run, name="lazylayer-erofs-mount", daemon=True)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
        _, (descriptor, *_), _, _ = socket.recv_fds(ours, _MESSAGE, 1, socket.MSG_CMSG_CLOEXEC)
        return descriptor


def _close_all_but(descriptor: int) -> None:
    # Not by os.closerange: a Python that was built without close_range(2) would close each number by itself.
    for first, last in ((0, descriptor - 1), (descriptor + 1, _LAST_DESCRIPTOR)):
        if first <= last and ctypes.CDLL(None, use_errno=True).syscall(_CLOSE_RANGE, first, last, 0) != 0:
            raise OSError(ctypes.get_errno(), "a thread's own descriptors cannot be closed")
