"""Make local images of mounted trees that are complete, one after the other, in the background.

`Localizer._lock` guards the queue; nothing is read or written while it is held.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from lazylayer.api.mounting import MountableTree
from lazylayer.errors import LazylayerError
from lazylayer_frontend_erofs.image import Image
from lazylayer_frontend_erofs.localimages import LocalImages
from lazylayer_frontend_erofs.mounts import ErofsMount

__all__ = ["LARGEST_DEFAULT_LIMIT", "Localizer", "default_limit"]

LARGEST_DEFAULT_LIMIT = 50 << 30
_END_SECONDS = 10.0


class _Wish(NamedTuple):
    mount: weakref.ref[ErofsMount]
    identity: str
    source: str
    image: Image


class Localizer:
    """The local images of a program, and the thread that makes them. Safe to use from any thread.

    :param root: image files are kept below it, at most `limit` bytes of them.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self._ending = threading.Event()
        self.images = LocalImages(root, limit, self._ending.is_set)
        self._lock = threading.Lock()
        self._wishes: dict[str, _Wish] = {}
        self._thread: threading.Thread | None = None

    def make_when_complete(self, mount: ErofsMount, tree: MountableTree, image: Image) -> Callable[[], None]:
        """Make a local image of a mounted tree once it is complete. Return a function that withdraws the wish."""
        wish = _Wish(weakref.ref(mount), tree.identity, tree.source, image)
        return tree.when_complete(lambda: self._add(wish))

    def _add(self, wish: _Wish) -> None:
        with self._lock:
            if self._ending.is_set():
                return
            self._wishes[wish.identity] = wish
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lazylayer-local-images", daemon=True)
                self._thread.start()

    def give_up(self, identity: str, error: OSError) -> None:
        """Stop making local images, since the kernel mounts none from this file system; remove this one."""
        self._ending.set()
        self.images.forget(identity)
        logger.warning(
            "EROFS mounts no file at {place}: {error}; layers are served instead. Have root on another file system, "
            "or set plugin.frontend_erofs.local_images = 0",
            place=str(self.images.directory),
            error=error.strerror or str(error),
        )

    def close(self) -> None:
        """Stop, even in the middle of an image."""
        with self._lock:
            self._ending.set()
            thread = self._thread
        if thread is not None:
            thread.join(_END_SECONDS)

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._ending.is_set() or not self._wishes:
                    self._thread = None
                    return
                wish = self._wishes.pop(next(iter(self._wishes)))
            mount = wish.mount()
            if mount is not None and not mount.wait(0):
                self._make(wish)

    def _make(self, wish: _Wish) -> None:
        try:
            if self.images.make(wish.identity, wish.image):
                logger.debug("{source}: its next mount needs no server", source=wish.source)
        except LazylayerError as error:
            logger.debug("{source}: no local image was made: {error}", source=wish.source, error=error)
        except Exception as error:  # noqa: BLE001 - the mount works without it
            logger.opt(exception=error).warning("{source}: no local image was made", source=wish.source)


def default_limit(root: Path) -> int:
    """Return a tenth of the file system that `root` is on, or will be on, in bytes. Raises OSError."""
    while not root.exists():
        root = root.parent
    status = os.statvfs(root)
    return min(status.f_blocks * status.f_frsize // 10, LARGEST_DEFAULT_LIMIT)
