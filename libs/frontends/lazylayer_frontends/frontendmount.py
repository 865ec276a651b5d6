"""The common half of a frontend's mounts: unmounted once, never under another mount, never left at exit.

A frontend makes the kernel's mount, then a `FrontendMount` of it, and overrides what differs::

    class MyMount(FrontendMount):
        frontend = "frontend_mine"

        def fail_reads(self):
            self.server.abort()

`FrontendMount._lock` is held over one unmount, which is a system call or the run of a helper program.
"""

from __future__ import annotations

import atexit
import errno
import threading
import weakref

from lazylayer.api.mounting import MountedTree
from lazylayer.errors import MountError
from lazylayer.linux import mounttable
from lazylayer.logger import logger
from lazylayer_frontends import mountcalls

__all__ = ["FrontendMount"]

_mounts: weakref.WeakSet[FrontendMount] = weakref.WeakSet()


class FrontendMount(MountedTree):
    """A mount at `mountpoint` that exists already. Safe to use from any thread.

    Mounts still there when Python exits are removed by force, except those that were left on purpose.
    """

    def __init__(self, mountpoint: str) -> None:
        self.mountpoint = mountpoint
        self.target = mounttable.real_mountpoint(mountpoint)
        """The mountpoint without symlinks."""
        self.kernel_mount = mounttable.mount_at(self.target)
        """The mount as the kernel lists it; None if it was gone already."""
        self.left = False
        """True once the mount was left to another process."""
        self._lock = threading.Lock()
        self._removed = threading.Event()
        _mounts.add(self)

    def unmount(self, *, force: bool = False) -> None:
        """Unmount once and stop serving; see `MountedTree.unmount`."""
        with self._lock:
            if self._is_there():
                self._remove(force=force)
            self._removed.set()
        self.forget()
        if not force:
            self.wait_ended()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the mount is gone; see `MountedTree.wait`. Override it where the server knows earlier."""
        device = self.kernel_mount.device if self.kernel_mount is not None else ""
        return self.is_removed or mounttable.mount_table().wait_gone(self.target, device, timeout)

    @property
    def is_removed(self) -> bool:
        """True once `unmount` has succeeded."""
        return self._removed.is_set()

    # --- what differs between frontends ------------------------------------------------------------

    def has_ended(self) -> bool:
        """Return True if the server knows, without looking, that the mount is gone."""
        return False

    def fail_reads(self) -> None:
        """Answer waiting and future reads with errors; called before a mount is removed by force."""

    def detach(self, *, force: bool) -> None:
        """Remove the kernel's mount. Raises OSError, EBUSY for a mount in use unless `force`."""
        mountcalls.unmount(self.target, force=force)

    def forget(self) -> None:
        """Drop what was kept for the next process; called after each unmount, so it must be idempotent."""

    def wait_ended(self) -> None:
        """Wait a moment for the server to end. Bounded: a read that hangs in the network may delay it."""

    def explain(self, error: OSError) -> str:
        """Return why the kernel refused, for the message of a MountError."""
        return error.strerror or str(error)

    # --- parts -------------------------------------------------------------------------------------

    def _remove(self, *, force: bool) -> None:
        if force:
            self.fail_reads()
        try:
            self.detach(force=force)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise MountError(
                    f"{self.mountpoint} is in use; end what uses it (fuser -vm {self.mountpoint}) or unmount by force"
                ) from error
            if self._is_there():
                raise MountError(f"{self.mountpoint} cannot be unmounted: {self.explain(error)}") from error

    def _is_there(self) -> bool:
        """Return True if the mount lies at its mountpoint. Raises MountError if another covers it."""
        on_top = mounttable.mount_at(self.target)
        if self.is_removed or self.has_ended() or on_top is None:
            return False
        if self.kernel_mount is not None and on_top.device != self.kernel_mount.device:
            raise MountError(f"{self.mountpoint}: another mount ({on_top.kind}) covers it; unmount that first")
        return True


@atexit.register
def _unmount_all() -> None:
    remaining = [mount for mount in _mounts if not mount.left]
    for mount in remaining:
        try:
            mount.unmount(force=True)
        except (MountError, OSError) as error:
            logger.warning("at exit: {error}", error=error)
    for mount in remaining:
        mount.wait_ended()
