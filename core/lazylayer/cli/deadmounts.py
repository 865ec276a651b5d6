"""Find the mounts whose process has died without removing them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lazylayer.cli.control import left_directories, processes
from lazylayer.errors import LazylayerError
from lazylayer.linux import mounttable
from lazylayer.logger import logger

if TYPE_CHECKING:
    from lazylayer.program import Program

__all__ = ["DeadMount", "find_dead_mounts", "forget_the_dead"]


class DeadMount(msgspec.Struct, frozen=True):
    """A mount that no process serves; `reference` is what the kernel's table of mounts says of it."""

    mountpoint: str
    reference: str
    frontend: str


def find_dead_mounts(program: Program, served: Collection[str]) -> list[DeadMount]:
    """Return the mounts that frontends recognize and no process serves, by mountpoint.

    :param served: the mountpoints of the processes that answer.
    """
    known = {os.fsencode(mounttable.real_mountpoint(each)) for each in served}
    return sorted(_find(program, known), key=lambda each: each.mountpoint)


def forget_the_dead(run: Path, program: Program) -> list[DeadMount]:
    """Return the dead mounts; if there are none, remove what dead processes left below the run directory."""
    left = left_directories(run)
    if not left:
        return []
    dead = find_dead_mounts(program, [mount.mountpoint for process in processes(run) for mount in process.mounts])
    for directory in () if dead else left:
        shutil.rmtree(directory, ignore_errors=True)
    return dead


def _find(program: Program, known: Collection[bytes]) -> Iterator[DeadMount]:
    for mount in mounttable.mount_table().below(""):
        if mount.mountpoint in known:
            continue
        try:
            left = program.hooks.recognize_mount(mount)
        except LazylayerError as error:
            logger.debug("{mount}: {error}", mount=mount.mountpoint, error=error)
            continue
        if left is not None and not left.alive:
            yield DeadMount(os.fsdecode(mount.mountpoint), os.fsdecode(mount.source), left.frontend)
