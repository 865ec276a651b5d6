"""The two mounts of an image: FUSE's, of the one file, which nobody sees, and EROFS on that file.

FUSE's mount is made and never attached to a directory. EROFS opens the file and keeps it open, so the
mount lives as long as EROFS does and goes with it; a server sees that by the end of its /dev/fuse.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lazylayer import kernelmounts

__all__ = ["CLONE_FS", "mount_erofs", "mount_file"]

CLONE_FS = 0x200

_Result = TypeVar("_Result")


def mount_file(descriptor: int, *, max_read: int) -> int:
    """Makes the FUSE mount of one file that is served on `descriptor`, an open /dev/fuse.

    Returns a descriptor of the mount. Raises OSError.
    """
    return kernelmounts.create(
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
    """Makes an EROFS mount of the image at `path`, and calls it `source` in the kernel's table of mounts.

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
    """The kernel shows the path that EROFS was mounted from: it is a symlink of that name, in a directory of ours."""
    directory = tempfile.mkdtemp(prefix="lazylayer-erofs-")
    try:
        name = _as_path(source)
        link = Path(directory, name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
        return _in_directory(directory, lambda: kernelmounts.create("erofs", [("source", name), *options]))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _as_path(source: str) -> str:
    """`source` as a relative path that leads nowhere else."""
    parts = [part[:200] for part in source.split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "lazylayer"


def _in_directory(directory: str, action: Callable[[], _Result]) -> _Result:
    """What `action` returns, called in a thread whose working directory is `directory`; the process keeps its own."""
    results: list[_Result] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_FS) != 0:
                raise OSError(ctypes.get_errno(), "a working directory for one thread cannot be had")
            os.chdir(directory)
            results.append(action())
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            failures.append(error)

    thread = threading.Thread(target=run, name="lazylayer-erofs-mount", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
