"""Which frontend shows the mounts of this program."""

from __future__ import annotations

from lazylayer.api.mounting import Missing, Works
from lazylayer.api.settings import MountSettings
from lazylayer.errors import LazylayerError, MountError, NotMountedError
from lazylayer.linux import mounttable
from lazylayer.logger import logger
from lazylayer.plugin.hooks import Hooks

__all__ = ["choose_frontend"]


def choose_frontend(hooks: Hooks, settings: MountSettings) -> str:
    """The name of the frontend to mount with.

    A frontend named in the configuration is taken as it is; `auto` takes the first of
    `mount.prefer` that says it works here, and logs which and why. Raises MountError when none does,
    with the reason of each.
    """
    if settings.frontend != "auto":
        return settings.frontend
    reasons: list[str] = []
    for name in settings.prefer:
        try:
            found = hooks.of(name).probe_frontend()
        except LazylayerError as error:
            found = Missing(str(error))
        if isinstance(found, Works):
            passed_over = f" ({'; '.join(reasons)})" if reasons else ""
            logger.info("mounting with {name}{passed_over}", name=name, passed_over=passed_over)
            return name
        reasons.append(f"{name}: {found}")
    raise MountError("no frontend works on this machine: " + "; ".join(reasons))


def remove_dead_mount(hooks: Hooks, mountpoint: str) -> None:
    """Has the frontend of a mount that no process of ours answers for remove it; `mountpoint` is absolute.

    Raises NotMountedError if there is none, and MountError when it cannot be unmounted.
    """
    mount = mounttable.mount_at(mountpoint)
    if mount is None or not hooks.remove_mount(mount):
        there = f"; a file system of the type {mount.kind} is" if mount is not None else ""
        raise NotMountedError(f"{mountpoint}: lazylayer has nothing mounted there{there}")
