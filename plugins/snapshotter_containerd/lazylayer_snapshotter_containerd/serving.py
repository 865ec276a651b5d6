"""Run the daemon of `lazylayer serve`, from its lock to its end."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import stat
from contextlib import ExitStack
from pathlib import Path

from lazylayer.api.settings import process_directory
from lazylayer.cli import ControlServer, Ending, use_few_arenas
from lazylayer.errors import LazylayerError
from lazylayer.mounts import Filesystem
from lazylayer.program import Program
from lazylayer_snapshotter_containerd.checking import DiffIdChecker
from lazylayer_snapshotter_containerd.deadlines import DEADLINE
from lazylayer_snapshotter_containerd.logger import logger
from lazylayer_snapshotter_containerd.options import Options
from lazylayer_snapshotter_containerd.pullservice import PullService
from lazylayer_snapshotter_containerd.restoring import Restorer, reconcile
from lazylayer_snapshotter_containerd.service import make_server
from lazylayer_snapshotter_containerd.snapshotter import Snapshotter
from lazylayer_snapshotter_containerd.systemd import Watchdog, notify, watchdog_seconds

__all__ = ["serve"]

_GRACE = 2.0
"""Seconds for calls under way to end when the daemon does."""


def serve(program: Program, options: Options, address: str = "") -> None:
    """Serve snapshots until SIGTERM or SIGINT.

    After SIGTERM, mounts that can outlive the process are left for its successor; after SIGINT
    everything is unmounted. Snapshots stay either way, and the next daemon mounts them again.

    :param address: the socket; empty for that of the settings.

    Raises LazylayerError if another daemon uses the root, or the socket cannot be bound.
    """
    use_few_arenas()
    _raise_descriptor_limit()
    settings = program.settings
    listen = Path(address or options.address or Path(settings.run) / "snapshotter.sock").absolute()
    root = Path(settings.root).absolute() / "snapshotter"
    with ExitStack() as stack:
        ending = stack.enter_context(Ending())
        stack.callback(os.close, _lock(root))
        filesystem = Filesystem(program)
        stack.callback(lambda: filesystem.close(leave=ending.received != signal.SIGINT))
        formats = program.hooks.formats()
        snapshotter = Snapshotter(root, filesystem, formats, wait_for_prefetch=options.wait_for_prefetch)
        stack.callback(snapshotter.close)
        remote = reconcile(snapshotter)
        pulls = PullService(program, filesystem, snapshotter, listen)
        stack.callback(pulls.close)
        control = ControlServer(process_directory(Path(settings.run)), filesystem, {"pull": pulls.pull})
        stack.callback(control.close)
        seconds = DEADLINE + (settings.prefetch.timeout if options.wait_for_prefetch else 0)
        server = make_server(snapshotter, options.threads, seconds)
        _listen(server, listen)
        stack.callback(listen.unlink, missing_ok=True)
        server.start()
        restorer = Restorer(snapshotter, remote)
        if options.check_diff_ids:
            checker = DiffIdChecker(snapshotter, filesystem.is_complete, program.hooks.resolve_blob)
            stack.callback(checker.close)
        filesystem.daemon_started()  # calls are answered meanwhile
        logger.info("serving snapshots on {listen}, from {root}", listen=str(listen), root=str(root))
        notify("READY=1")
        if watched := watchdog_seconds():
            stack.callback(Watchdog(listen, watched).close)
        number = ending.wait()
        notify("STOPPING=1")
        stopped = server.stop(_GRACE)
        restorer.close()
        filesystem.stop(leave=number != signal.SIGINT)
        stopped.wait(_GRACE)


def _raise_descriptor_limit() -> None:
    """Take all descriptors that the machine allows: a daemon without one answers no call."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _lock(root: Path) -> int:
    """Take the lock of the root directory, so that two daemons do not share one."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise LazylayerError(f"another `lazylayer serve` uses {root}; end it first, or choose another --root") from None
    return lock


def _listen(server: object, listen: Path) -> None:
    """Bind the server to a socket for root alone; remove the socket of a killed predecessor."""
    listen.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if listen.exists() or listen.is_symlink():
        if not stat.S_ISSOCK(listen.lstat().st_mode):
            raise LazylayerError(f"{listen} exists and is not a socket; remove it, or choose another --address")
        if _answers(listen):
            raise LazylayerError(f"another process serves {listen}; end it first, or choose another --address")
        listen.unlink()
    mask = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{listen}")  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise LazylayerError(f"cannot listen on {listen}: {error}") from error
    finally:
        os.umask(mask)


def _answers(listen: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(os.fspath(listen)) == 0
