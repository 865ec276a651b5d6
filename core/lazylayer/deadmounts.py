"""Taking away a mount whose process has died, so that its directory can be used again."""

from __future__ import annotations

from lazylayer import kernelmounts
from lazylayer.errors import NotMountedError
from lazylayer.hooks import Hooks

__all__ = ["remove_dead_mount"]


def remove_dead_mount(hooks: Hooks, mountpoint: str) -> None:
    """Has the frontend of a mount that no process of ours answers for remove it; `mountpoint` is absolute.

    Raises NotMountedError if there is none, and MountError when it cannot be unmounted.
    """
    mount = kernelmounts.mount_at(mountpoint)
    if mount is None or not hooks.remove_mount(mount):
        there = f"; a file system of the type {mount.kind} is" if mount is not None else ""
        raise NotMountedError(f"{mountpoint}: lazylayer has nothing mounted there{there}")
