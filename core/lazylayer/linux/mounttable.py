"""What is mounted where, known without reading the kernel's table again while it has not changed.

poll(2) says that /proc/self/mountinfo has changed since it was last asked (proc_pid_mountinfo(5)).

The lock is `MountTable._lock`; it is held while the table is read.
"""

from __future__ import annotations

import os
import re
import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from lazylayer.api.mounting import KernelMount

__all__ = ["MountTable", "mount_at", "parse_mounts"]

_MOUNTINFO = "/proc/self/mountinfo"
_LONGEST_WAIT = 3600.0


class MountTable:
    """The mounts of this process's namespace. Safe to use from any thread. Holds a descriptor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor = os.open(_MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        self._poll = _poll_for_changes(self._descriptor)
        self._mounts: dict[bytes, KernelMount] | None = None

    def at(self, target: str) -> KernelMount | None:
        """What lies on top at `target`, an absolute path without symlinks; None if it is no mountpoint."""
        with self._lock:
            if self._mounts is None or self._poll.poll(0):
                os.lseek(self._descriptor, 0, os.SEEK_SET)
                with open(self._descriptor, "rb", closefd=False) as table:
                    self._mounts = {mount.mountpoint: mount for mount in parse_mounts(table.read())}
            return self._mounts.get(os.fsencode(target))

    def wait_gone(self, target: str, device: str, timeout: float | None) -> bool:
        """Waits until another device than `device`, or none, is mounted at `target`; whether that is so.

        `timeout` in seconds; None waits for ever.
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


def _poll_for_changes(descriptor: int) -> select.poll:
    poll = select.poll()
    poll.register(descriptor, select.POLLPRI)
    return poll


_OCTAL = re.compile(rb"\\([0-7]{3})")


def mount_at(target: str) -> KernelMount | None:
    """What lies on top at `target`, an absolute path without symlinks; None if it is no mountpoint."""
    wanted = os.fsencode(target)
    found = None
    for mount in parse_mounts(Path("/proc/self/mountinfo").read_bytes()):
        if mount.mountpoint == wanted:
            found = mount
    return found


def parse_mounts(table: bytes) -> Iterator[KernelMount]:
    """The mounts of a table in the format of /proc/self/mountinfo, in its order: what lies on top comes later."""
    for line in table.splitlines():
        fields = line.split(b" ")
        kind, source = fields[fields.index(b"-", 6) + 1 :][:2]
        yield KernelMount(int(fields[0]), fields[2].decode(), _unescape(fields[4]), kind.decode(), _unescape(source))


def _unescape(field: bytes) -> bytes:
    if b"\\" not in field:
        return field
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)
