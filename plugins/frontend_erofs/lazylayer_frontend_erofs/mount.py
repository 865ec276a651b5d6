"""One mount: made, served and unmounted."""

from __future__ import annotations

import atexit
import errno
import os
import threading
import weakref
from pathlib import Path

from loguru import logger

from lazylayer import kernelmounts
from lazylayer.errors import LayerError, MountError
from lazylayer.mounting import MountableTree, MountedTree
from lazylayer_frontend_erofs.image import Image
from lazylayer_frontend_erofs.kernel import mount_erofs, mount_file
from lazylayer_frontend_erofs.metadata_cache import MetadataCache
from lazylayer_frontend_erofs.plugin import NAME, Options
from lazylayer_frontend_erofs.server import ImageServer
from lazylayer_frontend_erofs.writer import write_metadata

__all__ = ["ErofsMount", "mount_tree", "serve_image"]

_DEVICE = "/dev/fuse"
_END_SECONDS = 5.0

_mounts: weakref.WeakSet[ErofsMount] = weakref.WeakSet()


def mount_tree(tree: MountableTree, mountpoint: str, own: Options, root: str = "") -> MountedTree:
    """Mounts `tree`; the mount answers when this returns. Raises MountError.

    Finished metadata are kept below the directory `root`, if one is given.
    """
    if not Path(mountpoint).is_dir():
        raise MountError(f"{mountpoint} is not a directory; make it first")
    image = _open_image(tree, MetadataCache(Path(root), own.metadata_cache) if root else None)
    try:
        server, mounted = serve_image(image, tree.source, own)
    except OSError as error:
        raise MountError(f"{mountpoint} cannot be mounted with EROFS: {_reason(error)}") from error
    return ErofsMount(mountpoint, server, mounted, own)


def _open_image(tree: MountableTree, cache: MetadataCache | None) -> Image:
    if cache is None or not tree.identity:
        return Image(tree, write_metadata(tree.tree))
    known = cache.get(tree.identity)
    if known is not None:
        try:
            return Image(tree, known)
        except LayerError as error:
            logger.warning("kept metadata are written again: {error}", error=error)
    metadata = write_metadata(tree.tree)
    cache.put(tree.identity, metadata)
    return Image(tree, metadata)


def serve_image(image: Image, source: str, own: Options) -> tuple[ImageServer, int]:
    """Serves an image and makes a mount of it; returns the server and the mount's descriptor. Raises OSError."""
    device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        file = mount_file(device, max_read=own.max_read)
    except BaseException:
        os.close(device)
        raise
    server = ImageServer(
        device,
        image,
        threads=own.threads,
        max_read=own.max_read,
        max_background=own.max_background,
        direct=own.direct,
    )
    server.start()
    try:
        # Has the kernel ask for the file's size: a direct read believes the one that it knows, which is 0.
        os.fstat(file)
        mounted = mount_erofs(f"/proc/self/fd/{file}", source, direct=own.direct)
    finally:
        # From here on EROFS keeps the file open, or nobody does and the server ends.
        os.close(file)
    return server, mounted


class ErofsMount(MountedTree):
    """A mount of EROFS. The lock makes unmounting happen once; it is held over a system call."""

    frontend = NAME

    def __init__(self, mountpoint: str, server: ImageServer, mounted: int, own: Options) -> None:
        self.mountpoint = mountpoint
        self._target = os.path.realpath(mountpoint)
        self._server = server
        self._lock = threading.Lock()
        self._gone = threading.Event()
        try:
            kernelmounts.attach(mounted, self._target)
        except OSError as error:
            raise MountError(f"{mountpoint} cannot be mounted with EROFS: {_reason(error)}") from error
        finally:
            os.close(mounted)
        on_top = kernelmounts.mount_at(self._target)
        self._device = on_top.device if on_top is not None else ""
        self._set_read_ahead(own.read_ahead)
        server.store_metadata(own.stored_metadata)
        _mounts.add(self)

    def _set_read_ahead(self, size: int) -> None:
        try:
            Path(f"/sys/class/bdi/{self._device}/read_ahead_kb").write_text(str(size // 1024))
        except OSError as error:
            logger.debug(
                "{mountpoint}: the kernel's read-ahead stays: {error}", mountpoint=self.mountpoint, error=error
            )

    def unmount(self, *, force: bool = False) -> None:
        """Unmounts; see `MountedTree.unmount`."""
        with self._lock:
            if self._is_there():
                self._remove(force=force)
            self._gone.set()
        if not force:
            self.wait_ended()

    def wait_ended(self) -> None:
        """Waits a moment for the server's threads, for tidiness; a read that hangs in the network holds them up."""
        self._server.ended.wait(_END_SECONDS)

    def _remove(self, *, force: bool) -> None:
        if force:
            self._server.fail()
        try:
            kernelmounts.unmount(self._target, force=force)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise MountError(
                    f"{self.mountpoint} is in use; end what uses it (fuser -vm {self.mountpoint}) or unmount by force"
                ) from error
            if self._is_there():
                raise MountError(f"{self.mountpoint} cannot be unmounted: {_reason(error)}") from error

    def _is_there(self) -> bool:
        """Whether the mount lies at its mountpoint. Raises MountError if another lies on top of it."""
        if self._gone.is_set() or self._server.ended.is_set():
            return False
        on_top = kernelmounts.mount_at(self._target)
        if on_top is None:
            return False
        if self._device and on_top.device != self._device:
            raise MountError(f"something else ({on_top.kind}) is mounted over {self.mountpoint}; unmount that first")
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the mount is gone; see `MountedTree.wait`."""
        return self._gone.wait(0) or self._server.ended.wait(timeout)


def _reason(error: OSError) -> str:
    from lazylayer_frontend_erofs.probe import what_is_missing

    return what_is_missing(quick=True) or error.strerror or str(error)


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
