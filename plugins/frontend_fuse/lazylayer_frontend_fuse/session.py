"""One mount: made, served by libfuse's threads, and unmounted.

A thread of ours runs libfuse's loop, which ends when the mount is gone, whoever removed it. Mounts
that are still there when Python ends are removed then, so that none is left without a server.
"""

from __future__ import annotations

import atexit
import errno
import os
import threading
import weakref
from pathlib import Path

from loguru import logger

from lazylayer.api.mounting import MountableTree, MountedTree, MountOptions
from lazylayer.errors import MountError
from lazylayer.linux import mounttable
from lazylayer_frontend_fuse import connection, libfuse
from lazylayer_frontend_fuse.operations import Operations
from lazylayer_frontend_fuse.options import NAME, Options
from lazylayer_frontend_fuse.threads import keep_state

__all__ = ["FuseMount", "mount_tree"]

_READY_SECONDS = 30.0
_END_SECONDS = 5.0

_mounts: weakref.WeakSet[FuseMount] = weakref.WeakSet()


def mount_tree(tree: MountableTree, mountpoint: str, options: MountOptions, own: Options) -> MountedTree:
    """Mounts `tree` and waits until the mount answers. Raises MountError."""
    missing = connection.what_is_missing()
    if missing:
        raise MountError(f"{mountpoint} cannot be mounted with FUSE: {missing}")
    if not Path(mountpoint).is_dir():
        raise MountError(f"{mountpoint} is not a directory; make it first")
    allow_other = options.allow_other
    if allow_other and not connection.others_allowed():
        logger.info("only its owner can see {mountpoint}; user_allow_other is not set in /etc/fuse.conf",
                    mountpoint=mountpoint)  # fmt: skip
        allow_other = False
    return FuseMount(tree, mountpoint, own, allow_other=allow_other, debug=options.debug)


class FuseMount(MountedTree):
    """A mount that libfuse serves. The lock makes unmounting happen once; it is held over a system call."""

    frontend = NAME

    def __init__(self, tree: MountableTree, mountpoint: str, own: Options, *, allow_other: bool, debug: bool) -> None:
        self.mountpoint = mountpoint
        self._target = os.path.realpath(mountpoint)
        self._lock = threading.Lock()
        self._gone = threading.Event()
        self._ended = threading.Event()
        answered = threading.Event()
        operations = Operations(tree, answered.set, keep_state if own.threads and own.keep_thread_state else None)
        self._operations = libfuse.new_operations(operations.callbacks())
        descriptor = connection.connect(self._target, tree.source, allow_other=allow_other, max_read=own.max_read)
        mounted = mounttable.mount_at(self._target)
        self._device = mounted.device if mounted is not None else ""
        session = libfuse.new_session(descriptor, _session_options(own, debug=debug), self._operations)
        if not session:
            connection.disconnect(self._target, force=True)
            raise MountError(f"{mountpoint}: libfuse refuses its options; check [plugin.{NAME}]")
        self._thread = threading.Thread(
            target=self._serve, args=(session, own.threads, answered), name="lazylayer-fuse", daemon=True
        )
        self._thread.start()
        _mounts.add(self)
        if not answered.wait(_READY_SECONDS) or self._gone.is_set():
            self.unmount(force=True)
            raise MountError(f"{mountpoint} was mounted with FUSE, but the kernel did not start to use it")

    def _serve(self, session: int, threads: bool, answered: threading.Event) -> None:
        try:
            libfuse.run_session(session, threads=threads)
        finally:
            self._gone.set()
            answered.set()
            libfuse.destroy(session)
            self._ended.set()

    def unmount(self, *, force: bool = False) -> None:
        """Unmounts; see `MountedTree.unmount`."""
        with self._lock:
            if not self._is_there():
                self._gone.set()
            else:
                self._remove(force=force)
        if not force:
            self.wait_ended()

    def wait_ended(self) -> None:
        """Waits a moment for the threads to end, for tidiness; a read that hangs in the network may hold them up."""
        self._ended.wait(_END_SECONDS)

    def _remove(self, *, force: bool) -> None:
        if force:
            connection.abort(self._device)
        try:
            connection.disconnect(self._target, force=force)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise MountError(
                    f"{self.mountpoint} is in use; end what uses it (fuser -vm {self.mountpoint}) or unmount by force"
                ) from error
            if self._is_there():
                raise MountError(f"{self.mountpoint} cannot be unmounted: {error.strerror}") from error
        self._gone.set()

    def _is_there(self) -> bool:
        """Whether the mount lies at its mountpoint. Raises MountError if another lies on top of it."""
        if self._gone.is_set():
            return False
        on_top = mounttable.mount_at(self._target)
        if on_top is None:
            return False
        if self._device and on_top.device != self._device:
            raise MountError(f"something else ({on_top.kind}) is mounted over {self.mountpoint}; unmount that first")
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the mount is gone; see `MountedTree.wait`."""
        return self._gone.wait(timeout)


def _session_options(own: Options, *, debug: bool) -> list[str]:
    options = [
        f"attr_timeout={own.attribute_timeout}",
        f"entry_timeout={own.entry_timeout}",
        f"negative_timeout={own.negative_timeout}",
        f"max_background={own.max_background}",
        "use_ino",
    ]
    if own.kernel_cache:
        options.append("kernel_cache")
    if debug:
        options.append("debug")
    return options


@atexit.register
def _unmount_all() -> None:
    left = list(_mounts)
    for mount in left:
        try:
            mount.unmount(force=True)
        except (MountError, OSError) as error:
            logger.warning("at exit: {error}", error=error)
    for mount in left:
        mount.wait_ended()
