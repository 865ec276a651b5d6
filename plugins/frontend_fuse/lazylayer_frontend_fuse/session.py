"""One mount: made, served by libfuse's threads, and unmounted.

A thread of ours runs libfuse's loop, which ends when the mount is gone, by us or by umount(8).
"""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
from loguru import logger

from lazylayer.api.mounting import MountableTree, MountedTree, MountOptions
from lazylayer.errors import MountError
from lazylayer.linux import mounttable
from lazylayer_frontend_fuse import connection, libfuse
from lazylayer_frontend_fuse.operations import Operations
from lazylayer_frontend_fuse.options import NAME, Options
from lazylayer_frontend_fuse.threads import keep_state
from lazylayer_frontends.frontendmount import FrontendMount

__all__ = ["FuseMount", "mount_tree"]

_READY_SECONDS = 30.0
_END_SECONDS = 5.0


def mount_tree(tree: MountableTree, mountpoint: str, options: MountOptions, own: Options) -> MountedTree:
    """Mount `tree` and wait until the mount answers. Raises MountError."""
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
    return FuseMount(tree, mountpoint, own, msgspec.structs.replace(options, allow_other=allow_other))


class FuseMount(FrontendMount):
    """A mount that libfuse serves."""

    frontend = NAME

    def __init__(self, tree: MountableTree, mountpoint: str, own: Options, options: MountOptions) -> None:
        answered = threading.Event()
        operations = Operations(tree, answered.set, keep_state if own.threads and own.keep_thread_state else None)
        self._operations = libfuse.new_operations(operations.callbacks())
        self._gone = threading.Event()
        self._ended = threading.Event()
        target = mounttable.real_mountpoint(mountpoint)
        descriptor = connection.connect(target, tree.source, options, max_read=own.max_read)
        super().__init__(mountpoint)
        session = libfuse.new_session(descriptor, _session_options(own, debug=options.debug), self._operations)
        if not session:
            self._gone.set()
            connection.disconnect(target, force=True)
            raise MountError(f"{mountpoint}: libfuse refuses its options; check [plugin.{NAME}]")
        self._thread = threading.Thread(
            target=self._serve, args=(session, own.threads, answered), name="lazylayer-fuse", daemon=True
        )
        self._thread.start()
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

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the mount is gone; see `MountedTree.wait`."""
        return self.is_removed or self._gone.wait(timeout)

    def has_ended(self) -> bool:
        """Return True if libfuse's loop has ended; see `FrontendMount.has_ended`."""
        return self._gone.is_set()

    def fail_reads(self) -> None:
        """End the connection, so that readers get errors; see `FrontendMount.fail_reads`."""
        if self.kernel_mount is not None:
            connection.abort(self.kernel_mount.device)

    def detach(self, *, force: bool) -> None:
        """Remove the mount, as root or through fusermount; see `FrontendMount.detach`."""
        connection.disconnect(self.target, force=force)

    def forget(self) -> None:
        """Tell waiting threads that the mount is gone; see `FrontendMount.forget`."""
        self._gone.set()

    def wait_ended(self) -> None:
        """Wait a moment for libfuse's threads; see `FrontendMount.wait_ended`."""
        self._ended.wait(_END_SECONDS)


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
