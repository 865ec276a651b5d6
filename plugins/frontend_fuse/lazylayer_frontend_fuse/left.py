"""FUSE mounts that this process does not serve: dead ones, and those of other processes."""

from __future__ import annotations

import errno
import os
import threading

from lazylayer.api.mounting import KernelMount, LeftMount
from lazylayer.errors import MountError
from lazylayer_frontend_fuse import connection
from lazylayer_frontend_fuse.options import NAME

__all__ = ["LeftFuseMount", "recognize_mount"]

_DEAD = frozenset({errno.ENOTCONN, errno.ECONNABORTED})
_PROBE_SECONDS = 2.0


class LeftFuseMount(LeftMount):
    """A FUSE mount of lazylayer's own type."""

    frontend = NAME

    def __init__(self, target: str) -> None:
        self._target = target
        self.alive = _answers(target)

    def remove(self) -> None:
        """Unmount at once; see `LeftMount.remove`."""
        try:
            connection.disconnect(self._target, force=True)
        except OSError as error:
            raise MountError(f"{self._target} cannot be unmounted: {error.strerror}") from error


def recognize_mount(mount: KernelMount) -> LeftFuseMount | None:
    """Return the mount if its type is lazylayer's, else None."""
    return LeftFuseMount(os.fsdecode(mount.mountpoint)) if mount.kind == connection.KIND else None


def _answers(target: str) -> bool:
    """Return False if the kernel says that no process serves `target` any more.

    A server that is stopped or busy does not answer in time, but it lives.
    """
    dead = threading.Event()

    def ask() -> None:
        try:
            os.statvfs(target)
        except OSError as error:
            if error.errno in _DEAD:
                dead.set()

    asking = threading.Thread(target=ask, name="lazylayer-fuse-probe", daemon=True)
    asking.start()
    asking.join(_PROBE_SECONDS)
    return not dead.is_set()
