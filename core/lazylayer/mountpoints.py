"""What the kernel says is mounted, and how to take away a mount whose server is gone."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from lazylayer.errors import MountError, NotMountedError

__all__ = ["FUSE_SUBTYPE", "KernelMount", "detach_dead_mount", "mount_at"]

FUSE_SUBTYPE = "lazylayer"
"""What frontends on FUSE call themselves, so that their mounts have the type `fuse.lazylayer`."""

_OURS = (f"fuse.{FUSE_SUBTYPE}", "erofs")
_ESCAPE = re.compile(rb"\\([0-7]{3})")


class KernelMount(NamedTuple):
    """One line of /proc/self/mountinfo: where, of which type, from what."""

    mountpoint: str
    type: str
    source: str


def mount_at(mountpoint: str) -> KernelMount | None:
    """The topmost mount at `mountpoint`, an absolute path, or None. The mount itself is not touched."""
    found = None
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        where = os.fsdecode(_unescape(before.split(b" ")[4]))
        if where == mountpoint:
            kind, source = after.split(b" ")[:2]
            found = KernelMount(where, kind.decode(), os.fsdecode(_unescape(source)))
    return found


def detach_dead_mount(mountpoint: str) -> None:
    """Unmounts a mount of ours that no process of ours answers for.

    Raises NotMountedError if there is none, and MountError when it cannot be unmounted.
    """
    mount = mount_at(mountpoint)
    if mount is None or mount.type not in _OURS:
        there = f"; a {mount.type} file system is" if mount is not None else ""
        raise NotMountedError(f"{mountpoint}: lazylayer has nothing mounted there{there}")
    command = ["umount", "--lazy"] if os.geteuid() == 0 else ["fusermount", "-u", "-z"]
    try:
        done = subprocess.run([*command, "--", mountpoint], capture_output=True, text=True, check=False)
    except OSError as error:
        raise MountError(f"{mountpoint} cannot be unmounted: {command[0]}: {error.strerror}") from error
    if done.returncode:
        raise MountError(f"{mountpoint} cannot be unmounted: {done.stderr.strip()}")


def _unescape(field: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field)
