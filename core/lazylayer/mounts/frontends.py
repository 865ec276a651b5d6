"""Choose the frontend for new mounts, and clear mountpoints of the mounts that dead processes left."""

from __future__ import annotations

from lazylayer.api.mounting import Missing, Works
from lazylayer.api.settings import MountSettings
from lazylayer.errors import LazylayerError, MountError, NotMountedError
from lazylayer.linux import mounttable
from lazylayer.logger import logger
from lazylayer.plugin.hooks import AUTO, Hooks

__all__ = ["choose_frontend", "clear_mountpoint", "remove_left_mount"]


def choose_frontend(hooks: Hooks, settings: MountSettings) -> str:
    """Return the name of the frontend to mount with.

    A frontend named in the configuration is taken as it is. `auto` takes the first that works here, of
    `mount.prefer` or by the frontends' own preference, and logs which and why. Raises MountError when
    none does, with the reason of each.
    """
    if settings.frontend != AUTO:
        return settings.frontend
    reasons: list[str] = []
    for name in settings.prefer or hooks.candidates("lazylayer_mount_tree"):
        try:
            found = hooks.of(name).probe_frontend()
        except LazylayerError as error:
            found = Missing(str(error))
        if isinstance(found, Works):
            passed_over = f" ({'; '.join(reasons)})" if reasons else ""
            logger.info("mounting with {name}{passed_over}", name=name, passed_over=passed_over)
            return name
        reasons.append(f"{name}: {found}")
    raise MountError("no frontend works on this machine: " + ("; ".join(reasons) or "no frontend plugin is usable"))


def clear_mountpoint(hooks: Hooks, mountpoint: str, frontend: str) -> None:
    """Remove dead mounts of ours at `mountpoint`, so that a new mount neither stacks on them nor fails.

    A mount that `frontend` can take over stays. Raises MountError if a living process has the mount.
    """
    target = mounttable.real_mountpoint(mountpoint)
    seen: set[int] = set()
    while (mount := mounttable.mount_at(target)) is not None and mount.mount_id not in seen:
        left = hooks.recognize_mount(mount)
        if left is None:
            return
        if left.alive:
            raise MountError(f"{mountpoint} is already mounted by another process; unmount it first")
        if left.resumable and left.frontend == frontend:
            return
        logger.info("{mountpoint}: the mount of a dead process is removed", mountpoint=mountpoint)
        seen.add(mount.mount_id)
        left.remove()


def remove_left_mount(hooks: Hooks, mountpoint: str, *, force: bool = False) -> None:
    """Remove a mount that no answering process of ours has; `mountpoint` is absolute.

    Raises NotMountedError if no frontend recognizes the mount, and MountError if its process lives,
    unless `force`, or if it cannot be unmounted.
    """
    mount = mounttable.mount_at(mounttable.real_mountpoint(mountpoint))
    left = hooks.recognize_mount(mount) if mount is not None else None
    if left is None:
        there = f"; a file system of the type {mount.kind} is" if mount is not None else ""
        raise NotMountedError(f"{mountpoint}: lazylayer has nothing mounted there{there}")
    if left.alive and not force:
        raise MountError(
            f"{mountpoint}: its process lives but does not answer; wait, resume or end it, or unmount by force"
        )
    left.remove()
