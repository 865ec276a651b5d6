"""The mounts that are made: those that this process serves, and those that the kernel shows by itself."""

from __future__ import annotations

import atexit
import errno
import functools
import os
import threading
import weakref
from collections.abc import Callable

from loguru import logger

from lazylayer.api.mounting import KernelMount, MountedTree
from lazylayer.errors import MountError
from lazylayer.linux import mountcalls, mounttable
from lazylayer.linux.mounttable import MountTable
from lazylayer_frontend_erofs.keeping import Keeping
from lazylayer_frontend_erofs.kept import Kept
from lazylayer_frontend_erofs.options import NAME
from lazylayer_frontend_erofs.server import ImageServer

__all__ = ["ErofsMount", "LocalMount", "ServedMount", "explain", "remove_left"]

_END_SECONDS = 5.0

_mounts: weakref.WeakSet[ErofsMount] = weakref.WeakSet()


@functools.cache
def _mount_table() -> MountTable:
    return MountTable()


class ErofsMount(MountedTree):
    """A mount of EROFS. The lock makes unmounting happen once; it is held over a system call."""

    frontend = NAME

    def __init__(self, mountpoint: str, target: str) -> None:
        self.mountpoint = mountpoint
        self._target = target
        self._left = False
        self._lock = threading.Lock()
        self._gone = threading.Event()
        on_top = mounttable.mount_at(target)
        self.device = on_top.device if on_top is not None else ""
        _mounts.add(self)

    def unmount(self, *, force: bool = False) -> None:
        """Unmounts; see `MountedTree.unmount`."""
        with self._lock:
            if self._is_there():
                self._remove(force=force)
            self._gone.set()
        self._forget()
        if not force:
            self.wait_ended()

    def wait_ended(self) -> None:
        """Waits a moment for who serves the mount to end."""

    def _remove(self, *, force: bool) -> None:
        if force:
            self._fail()
        try:
            mountcalls.unmount(self._target, force=force)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise MountError(
                    f"{self.mountpoint} is in use; end what uses it (fuser -vm {self.mountpoint}) or unmount by force"
                ) from error
            if self._is_there():
                raise MountError(f"{self.mountpoint} cannot be unmounted: {explain(error)}") from error

    def _is_there(self) -> bool:
        """Whether the mount lies at its mountpoint. Raises MountError if another lies on top of it."""
        if self._gone.is_set() or self._has_ended():
            return False
        on_top = mounttable.mount_at(self._target)
        if on_top is None:
            return False
        if self.device and on_top.device != self.device:
            raise MountError(f"something else ({on_top.kind}) is mounted over {self.mountpoint}; unmount that first")
        return True

    # --- what differs ------------------------------------------------------------------------------

    def _has_ended(self) -> bool:
        """Whether it is known without a look that the mount is gone."""
        return False

    def _fail(self) -> None:
        """Has reads that wait get errors."""

    def _forget(self) -> None:
        """Keeps nothing for the mount's next process any more."""


class ServedMount(ErofsMount):
    """A mount whose image this process serves."""

    def __init__(self, mountpoint: str, target: str, server: ImageServer, kept: Kept) -> None:
        super().__init__(mountpoint, target)
        self._server = server
        self._kept = kept

    def wait_ended(self) -> None:
        """Waits a moment for the server's threads, for tidiness; a read that hangs in the network holds them up."""
        self._server.ended.wait(_END_SECONDS)

    def leave(self) -> bool:
        """Leaves the mount to the keeper; see `MountedTree.leave`."""
        self._left = self._kept.keeping is not None
        if self._left:
            self._server.leave()
        return self._left

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the mount is gone; see `MountedTree.wait`."""
        return self._gone.wait(0) or self._server.ended.wait(timeout)

    def _has_ended(self) -> bool:
        return self._server.ended.is_set()

    def _fail(self) -> None:
        self._server.fail()

    def _forget(self) -> None:
        self._kept.forget()


class LocalMount(ErofsMount):
    """A mount of a local image, which nobody serves: it outlives this process by itself.

    :param forget: forgets what was noted for the process that takes it up.
    """

    needs_tree = False

    def __init__(self, mountpoint: str, target: str, forget: Callable[[], None]) -> None:
        super().__init__(mountpoint, target)
        self._forget_note = forget

    def leave(self) -> bool:
        """Leaves the mount as it is; see `MountedTree.leave`."""
        self._left = True
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the mount is gone; see `MountedTree.wait`."""
        return self._gone.is_set() or _mount_table().wait_gone(self._target, self.device, timeout)

    def _forget(self) -> None:
        self._forget_note()


def remove_left(mount: KernelMount, *kept_by: Keeping | None) -> None:
    """Removes a mount whose process has died; nobody in `kept_by` keeps it any more. Raises MountError."""
    target = os.fsdecode(mount.mountpoint)
    try:
        mountcalls.unmount(target, force=True)
    except OSError as error:
        raise MountError(f"{target} cannot be unmounted: {explain(error)}") from error
    for keeping in kept_by:
        Kept(keeping, target).let_go()


def explain(error: OSError) -> str:
    """Why the kernel refused, as far as it is known."""
    from lazylayer_frontend_erofs.probe import what_is_missing

    return what_is_missing(quick=True) or error.strerror or str(error)


@atexit.register
def _unmount_all() -> None:
    left = [mount for mount in _mounts if not mount._left]
    for mount in left:
        try:
            mount.unmount(force=True)
        except (MountError, OSError) as error:
            logger.warning("at exit: {error}", error=error)
    for mount in left:
        mount.wait_ended()
