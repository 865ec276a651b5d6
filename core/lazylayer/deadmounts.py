"""Taking away a mount whose server is gone, so that its directory can be used again."""

from __future__ import annotations

import os
import subprocess

from lazylayer import kernelmounts
from lazylayer.errors import MountError, NotMountedError

__all__ = ["FUSE_KIND", "detach_dead_mount"]

FUSE_KIND = "fuse.lazylayer"
"""The type that the kernel lists for mounts of frontends on FUSE."""


def detach_dead_mount(mountpoint: str) -> None:
    """Unmounts a mount of ours that no process of ours answers for; `mountpoint` is absolute.

    Raises NotMountedError if there is none, and MountError when it cannot be unmounted.
    """
    mount = kernelmounts.mount_at(mountpoint)
    if mount is None or mount.kind not in (FUSE_KIND, "erofs"):
        there = f"; a file system of the type {mount.kind} is" if mount is not None else ""
        raise NotMountedError(f"{mountpoint}: lazylayer has nothing mounted there{there}")
    if os.geteuid() == 0:
        try:
            kernelmounts.unmount(mountpoint, force=True)
        except OSError as error:
            raise MountError(f"{mountpoint} cannot be unmounted: {error.strerror}") from error
        return
    command = ["fusermount", "-u", "-z", "--", mountpoint]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise MountError(f"{mountpoint} cannot be unmounted: fusermount: {error.strerror}") from error
    if done.returncode:
        raise MountError(f"{mountpoint} cannot be unmounted: {done.stderr.strip()}")
