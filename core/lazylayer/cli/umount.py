"""`lazylayer umount`: unmount one mount, or all that were made by hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lazylayer.cli.invocation import Invocation, warn, warn_of_silence
from lazylayer.errors import LazylayerError

if TYPE_CHECKING:
    from lazylayer.cli.control import ProcessState


@click.command()
@click.option("--force", is_flag=True, help="Unmount even if the mount is in use; readers get errors.")
@click.option("--all", "every", is_flag=True, help="Unmount all that `lazylayer mount` mounted, dead mounts included.")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), metavar="[DIR]", required=False)
@click.pass_context
def umount(context: click.Context, directory: Path | None, force: bool, every: bool) -> None:
    """Unmount what `lazylayer mount` mounted at DIR, or all of it, and end the processes that serve it.

    --all leaves the mounts of `lazylayer serve` alone: containerd's containers use them.
    """
    if (directory is None) != every:
        raise click.UsageError("name one DIR, or --all", context)
    settings = context.ensure_object(Invocation).configuration().settings
    run = Path(settings.run)
    if directory is None:
        _unmount_all(context, run, Path(settings.root), force=force)
        return
    from lazylayer.cli.control import find_mount, request_unmount

    mountpoint = os.path.abspath(directory)  # noqa: PTH100 - must not touch the mount
    process = find_mount(run, mountpoint, warn_of_silence)
    if process is not None:
        request_unmount(run, process.pid, mountpoint, force=force)
    else:
        _remove_left(context, run, [mountpoint], force=force)


def _unmount_all(context: click.Context, run: Path, root: Path, *, force: bool) -> None:
    """Unmount what lies outside the root directory; report every failure, and fail at the end."""
    from lazylayer.cli.control import left_directories, processes, request_unmount

    failures = 0
    for process in list(processes(run, warn_of_silence)):
        for mountpoint in _by_hand(process, root):
            try:
                request_unmount(run, process.pid, mountpoint, force=force)
                click.echo(f"{mountpoint}: unmounted")
            except LazylayerError as error:
                failures += 1
                warn(str(error))
    if left_directories(run):
        from lazylayer.cli.deadmounts import find_dead_mounts
        from lazylayer.cli.program import load_program

        served = [mount.mountpoint for each in processes(run) for mount in each.mounts]
        with load_program(context) as program:
            dead = [each.mountpoint for each in find_dead_mounts(program, served)]
        _remove_left(context, run, [each for each in dead if root not in Path(each).parents], force=force)
    if failures:
        raise LazylayerError(f"{failures} mounts were not unmounted")


def _by_hand(process: ProcessState, root: Path) -> list[str]:
    return [mount.mountpoint for mount in process.mounts if root not in Path(mount.mountpoint).parents]


def _remove_left(context: click.Context, run: Path, mountpoints: list[str], *, force: bool) -> None:
    from lazylayer.cli.deadmounts import forget_the_dead
    from lazylayer.cli.program import load_program
    from lazylayer.mounts.frontends import remove_left_mount

    with load_program(context) as program:
        for mountpoint in mountpoints:
            remove_left_mount(program.hooks, mountpoint, force=force)
        forget_the_dead(run, program)
