"""Makes local images of what is mounted and complete, one after the other, behind everybody's back.

The lock is `Localizer._lock`; nothing is read or written while it is held.
"""

from __future__ import annotations

import os
import threading
import weakref
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
    tree: MountableTree
    image: Image


class Localizer:
    """The local images of a program, and who makes them. Safe to use from any thread.

    :param root: image files are kept below it, at most `limit` bytes of them.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self._ending = threading.Event()
        self.images = LocalImages(root, limit, self._ending.is_set)
        self._lock = threading.Lock()
        self._wishes: dict[str, _Wish] = {}
        self._thread: threading.Thread | None = None

    def wish(self, mount: ErofsMount, tree: MountableTree, image: Image) -> None:
        """Has a local image made of a tree that is mounted, as soon as it is complete."""
        with self._lock:
            self._wishes[tree.identity] = _Wish(weakref.ref(mount), tree, image)
        self.look()

    def look(self) -> None:
        """Looks whether something that is mounted is complete by now; returns at once."""
        with self._lock:
            if self._ending.is_set() or self._thread is not None or not self._next_wish():
                return
            self._thread = threading.Thread(target=self._run, name="lazylayer-local-images", daemon=True)
            self._thread.start()

    def give_up(self, identity: str, error: OSError) -> None:
        """Makes no more local images, since the kernel mounts none that lies where they do; removes this one."""
        self._ending.set()
        self.images.forget(identity)
        logger.warning(
            "EROFS mounts no file at {place}: {error}; layers are served instead. Have root on another file system, "
            "or set plugin.frontend_erofs.local_images = 0",
            place=str(self.images.directory),
            error=error.strerror or str(error),
        )

    def close(self) -> None:
        """Stops, also in the middle of an image."""
        with self._lock:
            self._ending.set()
            thread = self._thread
        if thread is not None:
            thread.join(_END_SECONDS)

    def _run(self) -> None:
        while True:
            with self._lock:
                identity = "" if self._ending.is_set() else self._next_wish()
                if not identity:
                    self._thread = None
                    return
                wish = self._wishes.pop(identity)
            try:
                if self.images.make(identity, wish.image):
                    logger.debug("{source}: its next mount needs no server", source=wish.tree.source)
            except LazylayerError as error:
                logger.debug("{source}: no local image was made: {error}", source=wish.tree.source, error=error)
            except Exception as error:  # noqa: BLE001 - the mount works without it
                logger.opt(exception=error).warning("{source}: no local image was made", source=wish.tree.source)

    def _next_wish(self) -> str:
        """A tree that is complete, with the lock held; empty if none is. Those that are not mounted are forgotten."""
        self._wishes = {
            identity: wish
            for identity, wish in self._wishes.items()
            if (mount := wish.mount()) is not None and not mount.wait(0)
        }
        return next((identity for identity, wish in self._wishes.items() if wish.tree.complete), "")


def default_limit(root: Path) -> int:
    """A tenth of the file system that `root` is on, or will be on. Raises OSError."""
    while not root.exists():
        root = root.parent
    status = os.statvfs(root)
    return min(status.f_blocks * status.f_frsize // 10, LARGEST_DEFAULT_LIMIT)
