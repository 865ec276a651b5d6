"""One mount: made, served and unmounted."""

from __future__ import annotations

import atexit
import errno
import os
import secrets
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from loguru import logger

from lazylayer import kernelmounts
from lazylayer.errors import LayerError, MountError
from lazylayer.mounting import MountableTree, MountedTree
from lazylayer_frontend_erofs.image import Image
from lazylayer_frontend_erofs.keeping import Keeping, Note
from lazylayer_frontend_erofs.kernel import mount_erofs, mount_file
from lazylayer_frontend_erofs.metadata_cache import MetadataCache
from lazylayer_frontend_erofs.plugin import NAME, Options
from lazylayer_frontend_erofs.server import ImageServer
from lazylayer_frontend_erofs.writer import Metadata, write_metadata

__all__ = ["ErofsMount", "mount_tree", "serve_image"]

_DEVICE = "/dev/fuse"
_END_SECONDS = 5.0

_mounts: weakref.WeakSet[ErofsMount] = weakref.WeakSet()


def mount_tree(
    tree: MountableTree, mountpoint: str, own: Options, root: str = "", keeping: Keeping | None = None
) -> MountedTree:
    """Mounts `tree`, or takes up the mount of it that was kept; it answers when this returns. Raises MountError.

    Finished metadata are kept below the directory `root`, if one is given, and mounts by `keeping`.
    """
    if not Path(mountpoint).is_dir():
        raise MountError(f"{mountpoint} is not a directory; make it first")
    image = _open_image(tree, MetadataCache(Path(root), own.metadata_cache) if root else None)
    target = os.path.realpath(mountpoint)
    kept = _Kept(keeping, target)
    server = _resume(image, own, kept)
    if server is not None:
        return ErofsMount(mountpoint, target, server, kept)
    try:
        server, mounted = serve_image(image, tree.source, own, kept.forget)
        try:
            kernelmounts.attach(mounted, target)
        finally:
            os.close(mounted)
    except OSError as error:
        raise MountError(f"{mountpoint} cannot be mounted with EROFS: {_reason(error)}") from error
    mount = ErofsMount(mountpoint, target, server, kept)
    server.store_metadata(own.stored_metadata)
    kept.hold(mount.device, image.name, server.descriptor)
    return mount


class _Kept:
    """How one mount is kept; without `keeping` it is not."""

    def __init__(self, keeping: Keeping | None, target: str) -> None:
        self.keeping = keeping
        self.target = target
        self._token = secrets.token_hex(8)

    def hold(self, device: str, image: str, descriptor: int) -> None:
        """Keeps the mount."""
        if self.keeping is not None:
            self.keeping.hold(self.target, Note(self.target, device, image, self._token), descriptor)

    def take(self) -> tuple[Note, int] | None:
        """What was kept at the same place before; it is this mount from now on."""
        taken = self.keeping.take(self.target) if self.keeping is not None else None
        if taken is not None:
            self._token = taken[0].token
        return taken

    def forget(self) -> None:
        """Keeps it no longer."""
        if self.keeping is not None:
            self.keeping.forget(self.target, self._token)


def _resume(image: Image, own: Options, kept: _Kept) -> ImageServer | None:
    """Serves the mount that was kept; None if there was none, or one of another tree, which is unmounted."""
    taken = kept.take()
    if taken is None:
        return None
    note, device = taken
    target = kept.target
    on_top = kernelmounts.mount_at(target)
    if on_top is not None and on_top.device == note.device and note.image == image.name:
        server = _server(device, image, own, kept.forget)
        server.start()
        try:
            server.resend()
        except OSError as error:
            # The mount has gone meanwhile, which the server sees as well.
            logger.debug("{target}: {error}", target=target, error=error)
        logger.info("the mount at {target} was taken up again", target=target)
        return server
    os.close(device)
    kept.forget()
    if on_top is not None and on_top.device == note.device:
        logger.warning("{target}: what was mounted there shows another tree; it is unmounted", target=target)
        kernelmounts.unmount(target, force=True)
    return None


def _open_image(tree: MountableTree, cache: MetadataCache | None) -> Image:
    if cache is None or not tree.identity:
        return Image(tree, write_metadata(tree.tree))
    identity = tree.identity

    def make_metadata() -> Metadata:
        metadata = cache.get(identity)
        return write_metadata(tree.tree) if metadata is None else metadata

    known = cache.get(identity)
    if known is not None:
        try:
            return Image(tree, known, make_metadata)
        except LayerError as error:
            logger.warning("kept metadata are written again: {error}", error=error)
    metadata = write_metadata(tree.tree)
    cache.put(identity, metadata)
    return Image(tree, metadata, make_metadata)


def serve_image(
    image: Image, source: str, own: Options, on_end: Callable[[], None] = lambda: None
) -> tuple[ImageServer, int]:
    """Serves an image and makes a mount of it; returns the server and the mount's descriptor. Raises OSError."""
    device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        file = mount_file(device, max_read=own.max_read)
    except BaseException:
        os.close(device)
        raise
    server = _server(device, image, own, on_end)
    server.start()
    try:
        # Has the kernel ask for the file's size: a direct read believes the one that it knows, which is 0.
        os.fstat(file)
        mounted = mount_erofs(f"/proc/self/fd/{file}", source, direct=own.direct)
    finally:
        # From here on EROFS keeps the file open, or nobody does and the server ends.
        os.close(file)
    return server, mounted


def _server(device: int, image: Image, own: Options, on_end: Callable[[], None]) -> ImageServer:
    return ImageServer(
        device,
        image,
        threads=own.threads,
        max_read=own.max_read,
        max_background=own.max_background,
        direct=own.direct,
        on_end=on_end,
    )


class ErofsMount(MountedTree):
    """A mount of EROFS. The lock makes unmounting happen once; it is held over a system call."""

    frontend = NAME

    def __init__(self, mountpoint: str, target: str, server: ImageServer, kept: _Kept) -> None:
        self.mountpoint = mountpoint
        self._target = target
        self._server = server
        self._kept = kept
        self._left = False
        self._lock = threading.Lock()
        self._gone = threading.Event()
        on_top = kernelmounts.mount_at(target)
        self.device = on_top.device if on_top is not None else ""
        _mounts.add(self)

    def unmount(self, *, force: bool = False) -> None:
        """Unmounts; see `MountedTree.unmount`."""
        with self._lock:
            if self._is_there():
                self._remove(force=force)
            self._gone.set()
        self._kept.forget()
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
        if self.device and on_top.device != self.device:
            raise MountError(f"something else ({on_top.kind}) is mounted over {self.mountpoint}; unmount that first")
        return True

    def leave(self) -> bool:
        """Leaves the mount to the keeper; see `MountedTree.leave`."""
        self._left = self._kept.keeping is not None
        if self._left:
            self._server.leave()
        return self._left

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the mount is gone; see `MountedTree.wait`."""
        return self._gone.wait(0) or self._server.ended.wait(timeout)


def _reason(error: OSError) -> str:
    from lazylayer_frontend_erofs.probe import what_is_missing

    return what_is_missing(quick=True) or error.strerror or str(error)


@atexit.register
def _unmount_all() -> None:
    left = [mount for mount in _mounts if not mount._left]
    for mount in left:
        try:
            mount.unmount(force=True)
        except (MountError, OSError) as error:
            logger.warning("at exit: {error}", error=error)
    for mount in left:
        mount.wait_ended()
