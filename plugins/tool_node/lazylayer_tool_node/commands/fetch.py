"""`lazylayer fetch`: have all of a mount on this machine now."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lazylayer.cli import find_mount, load_settings

if TYPE_CHECKING:
    from lazylayer.api.events import MountState

_READERS = 8
_PIECE = 4 * 1024 * 1024


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.pass_context
def fetch(context: click.Context, directory: Path) -> None:
    """Fetch everything that the mount at DIR shows, now.

    Reads each file once, as any program would, without keeping it in the kernel's memory. Files that are here already
    cost no request. Interrupt it at any time: what came stays.
    """
    from lazylayer.errors import LayerError

    run = Path(load_settings(context).run)
    mountpoint = os.path.abspath(directory)  # noqa: PTH100 - must not follow a symlink out of the list of mounts
    before = _state(run, mountpoint)
    failures = read_everything(mountpoint)
    after = _state(run, mountpoint)
    here = sum(layer.fetched for layer in after.layers)
    came = here - sum(layer.fetched for layer in before.layers)
    size = sum(layer.size for layer in after.layers)
    click.echo(f"{mountpoint}: {came / 1e6:.1f} MB came, {here / 1e6:.1f} of {size / 1e6:.1f} MB are here")
    if failures:
        raise LayerError(f"{len(failures)} files could not be read; the first is {failures[0]}")


def read_everything(directory: str) -> list[str]:
    """Read all regular files below a directory, on its own file system; return a line for each that failed."""
    with ThreadPoolExecutor(_READERS, "lazylayer-fetch") as threads:
        try:
            return [failure for failure in threads.map(_read, _files(directory)) if failure]
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _files(directory: str) -> Iterator[str]:
    device = os.stat(directory).st_dev  # noqa: PTH116 - paths that are not UTF-8 stay as they are
    seen: set[int] = set()
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118 - likewise
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and status.st_dev == device and status.st_ino not in seen:
                seen.add(status.st_ino)
                yield path


def _read(path: str) -> str:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            while os.read(file, _PIECE):
                pass
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""


def _state(run: Path, mountpoint: str) -> MountState:
    from lazylayer.errors import NotMountedError

    process = find_mount(run, mountpoint)
    if process is None:
        raise NotMountedError(f"{mountpoint}: no lazylayer process serves a mount there; `lazylayer status` lists them")
    return next(each for each in process.mounts if each.mountpoint == mountpoint)
