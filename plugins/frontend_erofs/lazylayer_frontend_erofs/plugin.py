"""The plugin: its options, whether EROFS works here, and mounting."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from lazylayer import hookimpl
from lazylayer.api.mounting import KernelMount, LeftMount, Missing, MountableTree, MountedTree, MountOptions, Works
from lazylayer.api.settings import Settings
from lazylayer.errors import MountError
from lazylayer_frontend_erofs.options import NAME, Options

if TYPE_CHECKING:
    from lazylayer_frontend_erofs.keeping import Keeping
    from lazylayer_frontend_erofs.localizing import Localizer

__all__ = ["FrontendErofs"]


class FrontendErofs:
    """The plugin; it keeps its options. Its lock is held while keeping is set up."""

    preference = 100

    def __init__(self) -> None:
        self._options = Options()
        self._root = self._run = ""
        self._keeping: Keeping | None = None
        self._localizer: Localizer | None = None
        self._lock = threading.Lock()

    @hookimpl
    def lazylayer_configure(self, settings: Settings, options: Options) -> None:
        """Take `[plugin.frontend_erofs]` and the directories."""
        self._options = options
        self._root, self._run = settings.root, settings.run

    @hookimpl
    def lazylayer_probe_frontend(self) -> Works | Missing:
        """Mount a tiny hidden image, and check that a failing read fails."""
        from lazylayer_frontend_erofs.probe import what_is_missing

        return what_is_missing() or Works()

    @hookimpl
    def lazylayer_daemon_started(self, frontend: str) -> None:
        """Import the modules that mounts need, and start the keeper."""
        if frontend == NAME:
            import lazylayer_frontend_erofs.mount  # noqa: F401

            keeping = self._open_keeping()
            if keeping is not None:
                keeping.get_ready()

    @hookimpl
    def lazylayer_mount_tree(self, tree: MountableTree, mountpoint: str, mount_options: MountOptions) -> MountedTree:
        """Write the metadata and mount; the data are served from threads."""
        if mount_options.separate_files:
            raise MountError(f"{NAME} reads ahead from one file into the next; use another frontend")
        from lazylayer_frontend_erofs.mount import mount_tree

        return mount_tree(
            tree,
            mountpoint,
            self._options,
            self._root,
            self._open_keeping(),
            self._open_localizer(),
            suid=mount_options.suid,
        )

    @hookimpl
    def lazylayer_recognize_mount(self, mount: KernelMount) -> LeftMount | None:
        """Recognize a mount by the note that its process made; any other EROFS is somebody else's."""
        from lazylayer_frontend_erofs.mounts import recognize_mount

        keeping = self._open_keeping()
        return recognize_mount(mount, keeping) if keeping is not None else None

    @hookimpl
    def lazylayer_close(self) -> None:
        """Stop making local images."""
        if self._localizer is not None:
            self._localizer.close()

    def _open_localizer(self) -> Localizer | None:
        from lazylayer_frontend_erofs.localizing import Localizer, default_limit

        with self._lock:
            if self._localizer is None and self._root and self._options.local_images != 0:
                limit = self._options.local_images
                try:
                    limit = default_limit(Path(self._root)) if limit is None else limit
                except OSError:
                    return None
                self._localizer = Localizer(Path(self._root), limit)
            return self._localizer

    def _open_keeping(self) -> Keeping | None:
        from lazylayer_frontend_erofs.keeping import open_keeping

        with self._lock:
            if self._keeping is None and self._run:
                self._keeping = open_keeping(self._options.keeper, self._run, self._options.keeper_timeout)
            return self._keeping
