"""`lazylayer mount`."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lazylayer.cli.invocation import Invocation
from lazylayer.cli.references import IMAGE, plain_http_override
from lazylayer.errors import LazylayerError, MountError

if TYPE_CHECKING:
    from lazylayer.api.oci import Reference
    from lazylayer.cli.ending import Ending
    from lazylayer.mounts.filesystem import Filesystem

_READY_FD = "_LAZYLAYER_READY_FD"
"""The descriptor on which the detached process reports that its mount is ready."""

_INTERRUPTED_WITHIN = 0.7
"""Seconds in which a process that has not mounted yet ends on a signal: someone waits at a terminal."""

_DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("--plain-http", is_flag=True, help="Speak plain HTTP to the registry.")
@click.option("--frontend", metavar="NAME", help="Frontend plugin, by default the best that works here.")
@click.option("--layer", type=click.IntRange(min=0), metavar="N", help="Only layer N, 0 the lowest.")
@click.option("--suid", is_flag=True, help="Honour set-user-ID bits and device files of the image.")
@click.option("--nonempty", is_flag=True, help="Cover a directory that has files in it.")
@click.option("--foreground", is_flag=True, help="Serve the mount in this process until it is unmounted.")
@click.argument("reference", type=IMAGE, metavar="REF")
@click.argument("directory", type=_DIRECTORY, metavar="DIR")
@click.pass_context
def mount(
    context: click.Context,
    reference: Reference,
    directory: Path,
    plain_http: bool,
    frontend: str | None,
    layer: int | None,
    suid: bool,
    nonempty: bool,
    foreground: bool,
) -> None:
    """Mount the image REF at DIR.

    Returns when the mount is ready; a process of its own serves it. Without --layer, DIR shows the
    image's layers merged, as a container sees them. With it, DIR shows one layer as overlayfs wants a
    lower directory, whiteouts included.
    """
    _require_directory(directory, nonempty)
    ready_fd = os.environ.pop(_READY_FD, None)
    if not foreground and ready_fd is None:
        sys.exit(_start_detached())
    overrides = plain_http_override(reference, plain_http)
    if frontend:
        overrides.append(f"mount.frontend={frontend}")
    mountpoint = str(directory.absolute())

    def mount_image(filesystem: Filesystem) -> None:
        filesystem.mount_image(mountpoint, reference, layer, suid=suid)

    _serve(context, overrides, mountpoint, mount_image, int(ready_fd) if ready_fd else None)


def _require_directory(directory: Path, nonempty: bool) -> None:
    """Refuse a directory that does not exist, or whose files a mount would hide. Never looks into a mount."""
    from lazylayer.linux.mounttable import is_mounted

    try:
        str(directory.absolute()).encode()
    except UnicodeEncodeError:
        raise MountError(f"{directory}: the name is not UTF-8, so that no status could show it; use another") from None
    if is_mounted(str(directory)):
        return  # a dead mount is replaced, a living one refused, and others are covered
    try:
        with os.scandir(directory) as entries:
            covered = next(entries, None)
    except FileNotFoundError:
        raise click.BadParameter(f"Directory '{directory}' does not exist.", param_hint="'DIR'") from None
    except OSError:
        return  # mounting says what is wrong
    if covered is not None and not nonempty:
        raise MountError(
            f"{directory} is not empty: a mount would hide its files; "
            "choose an empty directory, or cover it with --nonempty"
        )


def _start_detached() -> int:
    """Run this command again, in the background. Return its exit status once it is ready."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "lazylayer", *sys.argv[1:]]
    environment = {**os.environ, _READY_FD: str(writing)}
    with os.fdopen(reading, "rb") as ready:
        with os.fdopen(writing, "wb"):
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, env=environment, pass_fds=(writing,), start_new_session=True
            )
        try:
            if ready.read(1):
                process.returncode = 0  # it goes on without us
                return 0
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()  # it ends in time, or we do; then it sees that we have gone
            raise


def _serve(
    context: click.Context,
    overrides: list[str],
    mountpoint: str,
    mount_image: Callable[[Filesystem], None],
    ready_fd: int | None,
) -> None:
    import msgspec

    from lazylayer.api.settings import process_directory
    from lazylayer.cli.controlserver import ControlServer
    from lazylayer.cli.deadmounts import forget_the_dead
    from lazylayer.cli.ending import END_WITHIN, Ending
    from lazylayer.cli.malloc import use_few_arenas
    from lazylayer.cli.program import load_program
    from lazylayer.mounts.filesystem import Filesystem

    use_few_arenas()
    with load_program(context, overrides) as program, ExitStack() as stack:
        mounted = threading.Event()
        ending = Ending(lambda: None if mounted.is_set() else program.hooks.interrupt(), _INTERRUPTED_WITHIN)
        stack.enter_context(ending)
        if ready_fd is not None:
            _end_with_parent(ready_fd, mounted)
        invocation, log = context.ensure_object(Invocation), program.settings.log
        if ready_fd is not None and log.level == "INFO":
            invocation.set_up_log(msgspec.structs.replace(log, level="WARNING"))  # success needs no words
        filesystem = Filesystem(program)
        own = process_directory(Path(program.settings.run))
        try:
            _mount_unless_interrupted(mount_image, filesystem, ending)
            mounted.set()
            ending.seconds = END_WITHIN
            control = ControlServer(own, filesystem)
            try:
                threading.Thread(target=_wait_gone, args=(filesystem, mountpoint, ending), daemon=True).start()
                forget_the_dead(Path(program.settings.run), program)  # perhaps the new mount has replaced the last
                if ready_fd is not None:
                    _detach(own, ready_fd)
                    invocation.set_up_log(log)
                ending.wait()
            finally:
                control.close()
        finally:
            filesystem.close()
            shutil.rmtree(own, ignore_errors=True)


def _mount_unless_interrupted(
    mount_image: Callable[[Filesystem], None], filesystem: Filesystem, ending: Ending
) -> None:
    """Mount. If a signal ends that, exit quietly: the terminal belongs to the next command."""
    try:
        mount_image(filesystem)
    except LazylayerError:
        if ending.received:
            sys.exit(128 + ending.received)
        raise


def _end_with_parent(ready_fd: int, mounted: threading.Event) -> None:
    """End this process if the one that waits for its mount ends first."""
    waiting = select.poll()
    waiting.register(ready_fd, 0)  # an error is all that it can report: nothing reads what is written there

    def watch() -> None:
        waiting.poll()
        if not mounted.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="lazylayer-parent", daemon=True).start()


def _wait_gone(filesystem: Filesystem, mountpoint: str, ending: Ending) -> None:
    from lazylayer.errors import NotMountedError

    try:
        filesystem.wait(mountpoint)
    except NotMountedError:
        pass
    finally:
        ending.begin()


def _detach(own: Path, ready_fd: int) -> None:
    """Report that the mount is ready, and leave the terminal."""
    log = os.open(own / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(log, stream.fileno())
    os.close(log)
    os.chdir("/")
    os.write(ready_fd, b"+")
    os.close(ready_fd)
