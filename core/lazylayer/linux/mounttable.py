"""Read the kernel's table of mounts, /proc/self/mountinfo, again only when it has changed.

poll(2) reports a change of the table since it was last asked; see proc_pid_mountinfo(5).
`MountTable._lock` guards the parsed table, and is held while the table is read.
"""

from __future__ import annotations

import functools
import os
import re
import select
import threading
import time
from collections.abc import Iterable

from lazylayer.api.mounting import KernelMount

__all__ = ["MountTable", "is_mounted", "mount_at", "mount_table", "real_mountpoint"]

_MOUNTINFO = "/proc/self/mountinfo"
_LONGEST_WAIT = 3600.0
_OCTAL = re.compile(rb"\\([0-7]{3})")


class MountTable:
    """The mounts of this process's namespace. Safe to use from any thread. Holds a descriptor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor = os.open(_MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        self._poll = _poll_for_changes(self._descriptor)
        self._on_top: dict[bytes, KernelMount] | None = None

    def at(self, target: str) -> KernelMount | None:
        """Return the topmost mount at `target`, an absolute path without symlinks, or None."""
        return self._read().get(os.fsencode(target))

    def below(self, directory: str) -> list[KernelMount]:
        """Return the topmost mount of every mountpoint inside `directory`, the last made first."""
        prefix = os.fsencode(directory) + b"/"
        found = [mount for mountpoint, mount in self._read().items() if mountpoint.startswith(prefix)]
        return sorted(found, key=lambda mount: mount.mount_id, reverse=True)

    def wait_gone(self, target: str, device: str, timeout: float | None) -> bool:
        """Wait until `device` is no longer the topmost mount at `target`; return False on a time-out.

        `timeout` is in seconds; None waits forever.
        """
        if timeout == 0:
            return not self._is_at(target, device)
        deadline = None if timeout is None else time.monotonic() + timeout
        descriptor = os.open(_MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        try:
            poll = _poll_for_changes(descriptor)
            while self._is_at(target, device):
                left = _LONGEST_WAIT if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    return False
                poll.poll(min(left, _LONGEST_WAIT) * 1000)
            return True
        finally:
            os.close(descriptor)

    def _is_at(self, target: str, device: str) -> bool:
        mount = self.at(target)
        return mount is not None and mount.device == device

    def _read(self) -> dict[bytes, KernelMount]:
        with self._lock:
            if self._on_top is None or self._poll.poll(0):
                os.lseek(self._descriptor, 0, os.SEEK_SET)
                with open(self._descriptor, "rb", closefd=False) as table:
                    self._on_top = _topmost(_parse_mount(line.split(b" ")) for line in table.read().splitlines())
            return self._on_top


@functools.cache
def mount_table() -> MountTable:
    """Return the table of this process, shared by all callers."""
    return MountTable()


def mount_at(target: str) -> KernelMount | None:
    """Return the topmost mount at `target`, an absolute path without symlinks, or None."""
    return mount_table().at(target)


def is_mounted(path: str) -> bool:
    """Return True if `path` is a mountpoint, without a look into what is mounted there."""
    return mount_at(real_mountpoint(path)) is not None


def real_mountpoint(path: str) -> str:
    """Return `path` as the kernel's table names it, without a look into what is mounted there.

    A dead or stopped server of the mount can therefore neither fail nor delay the call.
    """
    directory, name = os.path.split(os.path.abspath(path))  # noqa: PTH100 - must not touch the mount
    target = f"{os.path.realpath(directory).rstrip('/')}/{name}"
    return target if mount_at(target) is not None else os.path.realpath(target)


def _parse_mount(fields: list[bytes]) -> KernelMount:
    kind, source = fields[fields.index(b"-", 6) + 1 :][:2]
    return KernelMount(
        mount_id=int(fields[0]),
        parent_id=int(fields[1]),
        device=fields[2].decode(),
        mountpoint=_unescape(fields[4]),
        kind=kind.decode(),
        source=_unescape(source),
    )


def _topmost(mounts: Iterable[KernelMount]) -> dict[bytes, KernelMount]:
    """Keep the topmost mount of each mountpoint: the one that no other mount there covers."""
    at: dict[bytes, list[KernelMount]] = {}
    for mount in mounts:
        at.setdefault(mount.mountpoint, []).append(mount)
    topmost = {}
    for mountpoint, stack in at.items():
        covered = {mount.parent_id for mount in stack if mount.parent_id != mount.mount_id}
        topmost[mountpoint] = next((mount for mount in reversed(stack) if mount.mount_id not in covered), stack[-1])
    return topmost


def _poll_for_changes(descriptor: int) -> select.poll:
    poll = select.poll()
    poll.register(descriptor, select.POLLPRI)
    return poll


def _unescape(field: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)
