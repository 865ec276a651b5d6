"""Mounts of EROFS: those that this process serves, those of a local image, and those that a process left."""

from __future__ import annotations

import os

from lazylayer.api.mounting import KernelMount, LeftMount
from lazylayer.errors import MountError
from lazylayer_frontend_erofs.keeping import Keeping, Kept
from lazylayer_frontend_erofs.machine import explain
from lazylayer_frontend_erofs.options import NAME
from lazylayer_frontend_erofs.server import ImageServer
from lazylayer_frontends import mountcalls
from lazylayer_frontends.frontendmount import FrontendMount

__all__ = ["ErofsMount", "LeftErofsMount", "LocalMount", "ServedMount", "recognize_mount"]

_END_SECONDS = 5.0


class ErofsMount(FrontendMount):
    """A mount of EROFS, kept for the next process by `kept`."""

    frontend = NAME

    def __init__(self, mountpoint: str, kept: Kept) -> None:
        super().__init__(mountpoint)
        self._kept = kept

    def explain(self, error: OSError) -> str:
        """Return why the kernel refused; see `FrontendMount.explain`."""
        return explain(error)

    def forget(self) -> None:
        """Keep the mount no longer; see `FrontendMount.forget`."""
        self._kept.forget()


class ServedMount(ErofsMount):
    """A mount whose image this process serves."""

    def __init__(self, mountpoint: str, kept: Kept, server: ImageServer) -> None:
        super().__init__(mountpoint, kept)
        self._server = server

    def leave(self) -> bool:
        """Leave the mount to the keeper; see `MountedTree.leave`."""
        if not self._kept.can_leave_served:
            return False
        self.left = True
        self._server.leave()
        self._kept.leave()
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the mount is gone; see `MountedTree.wait`."""
        return self.is_removed or self._server.ended.wait(timeout)

    def has_ended(self) -> bool:
        """Return True if the kernel has let go of the image; see `FrontendMount.has_ended`."""
        return self._server.ended.is_set()

    def fail_reads(self) -> None:
        """Answer reads with errors; see `FrontendMount.fail_reads`."""
        self._server.fail()

    def wait_ended(self) -> None:
        """Wait a moment for the server's threads; see `FrontendMount.wait_ended`."""
        self._server.ended.wait(_END_SECONDS)


class LocalMount(ErofsMount):
    """A mount of a local image: it needs no server, and outlives this process by itself."""

    needs_tree = False

    def leave(self) -> bool:
        """Leave the mount as it is; see `MountedTree.leave`."""
        self.left = True
        self._kept.leave()
        return True


class LeftErofsMount(LeftMount):
    """A mount of EROFS that a process left, or has."""

    frontend = NAME

    def __init__(self, mount: KernelMount, keeping: Keeping) -> None:
        self._target = os.fsdecode(mount.mountpoint)
        self._keeping = keeping
        self.alive = keeping.is_taken(self._target)
        self.resumable = True

    def remove(self) -> None:
        """Unmount, and let go of what was kept for the next process; see `LeftMount.remove`."""
        remove_mount(self._target)
        self._keeping.discard(self._target)


def recognize_mount(mount: KernelMount, keeping: Keeping) -> LeftErofsMount | None:
    """Return the mount if a process of this program made it; None for every other mount, EROFS or not."""
    return LeftErofsMount(mount, keeping) if keeping.find(mount) is not None else None


def remove_mount(target: str) -> None:
    """Unmount `target` at once, in use or not. Raises MountError."""
    try:
        mountcalls.unmount(target, force=True)
    except OSError as error:
        raise MountError(f"{target} cannot be unmounted: {explain(error)}") from error
