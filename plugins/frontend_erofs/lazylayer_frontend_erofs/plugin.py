"""The plugin: its options, whether EROFS works here, and mounting."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from lazylayer import hookimpl
from lazylayer.kernelmounts import KernelMount
from lazylayer.mounting import MountableTree, MountedTree, MountOptions
from lazylayer.settings import Settings

if TYPE_CHECKING:
    from lazylayer.events import StateEvent
    from lazylayer_frontend_erofs.keeping import Keeping
    from lazylayer_frontend_erofs.localizing import Localizer

__all__ = ["NAME", "FrontendErofs", "Options"]

NAME = "frontend_erofs"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.frontend_erofs]`. Sizes in bytes."""

    threads: Annotated[int, msgspec.Meta(ge=2, le=1024)] = 64
    """How many reads of one mount may wait for the network at once."""
    max_read: Annotated[int, msgspec.Meta(ge=4096, le=1024 * 1024, multiple_of=4096)] = 1024 * 1024
    """The largest read that the kernel asks for at once."""
    max_background: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 128
    """How many reads of one mount the kernel may have under way in the background."""
    stored_metadata: Annotated[int, msgspec.Meta(ge=0)] = 32 * 1024 * 1024
    """How much of a mount's metadata is put into the kernel's cache ahead of use."""
    metadata_cache: Annotated[int, msgspec.Meta(ge=0)] = 256 * 1024 * 1024
    """How many bytes of finished metadata are kept on disk for the next mount of a layer; 0 keeps none."""
    keeper: Literal["auto", "process", "systemd", "off"] = "auto"
    """Who keeps mounts alive while the daemon is restarted: systemd's descriptor store, or a process of ours."""
    keeper_timeout: Annotated[float, msgspec.Meta(gt=0)] = 120.0
    """How many seconds our keeper waits for a new daemon; then readers get errors."""
    local_images: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """How many bytes of whole images are kept on disk, so that the next mount of a layer that is complete needs
    no server; 0 keeps none. By default a tenth of the file system, and not more than 50 GiB."""
    direct: bool = True
    """Whether data go straight to EROFS's page cache; otherwise the kernel keeps two copies."""


class FrontendErofs:
    """The plugin; it keeps its options. Its lock is held while keeping is set up."""

    def __init__(self) -> None:
        self._options = Options()
        self._root = self._run = ""
        self._keeping: Keeping | None = None
        self._localizer: Localizer | None = None
        self._lock = threading.Lock()

    @hookimpl
    def lazylayer_configure(self, settings: Settings) -> None:
        """Takes `[plugin.frontend_erofs]`."""
        self._options = settings.plugin_options(NAME, Options)
        self._root, self._run = settings.root, settings.run

    @hookimpl
    def lazylayer_probe_frontend(self, frontend: str) -> str | None:
        """Mounts a tiny image, which stays hidden, and looks whether a failing read fails."""
        if frontend != NAME:
            return None
        from lazylayer_frontend_erofs.probe import what_is_missing

        return what_is_missing()

    @hookimpl
    def lazylayer_warm_up(self, frontend: str) -> None:
        """Imports what mounts need, and starts the keeper."""
        if frontend == NAME:
            import lazylayer_frontend_erofs.mount  # noqa: F401

            keeping = self._open_keeping()
            if keeping is not None:
                keeping.get_ready()

    @hookimpl
    def lazylayer_mount_tree(self, tree: MountableTree, mountpoint: str, options: MountOptions) -> MountedTree | None:
        """Writes the metadata and mounts; the data are served from threads."""
        if options.frontend != NAME:
            return None
        from lazylayer_frontend_erofs.mount import mount_tree

        return mount_tree(tree, mountpoint, self._options, self._root, self._open_keeping(), self._open_localizer())

    @hookimpl
    def lazylayer_remove_mount(self, mount: KernelMount) -> bool | None:
        """Unmounts, and has the keeper let go, so that nobody waits for the next process."""
        if mount.kind != "erofs":
            return None
        from lazylayer_frontend_erofs.mounts import remove_left

        localizer = self._open_localizer()
        remove_left(mount, self._open_keeping(), localizer.notes if localizer is not None else None)
        return True

    @hookimpl
    def lazylayer_report_state(self, event: StateEvent) -> None:
        """Has a local image made of what is complete."""
        if event.kind == "completed" and self._localizer is not None:
            self._localizer.look()

    @hookimpl
    def lazylayer_close(self) -> None:
        """Makes no more local images."""
        if self._localizer is not None:
            self._localizer.close()

    def _open_localizer(self) -> Localizer | None:
        from lazylayer_frontend_erofs.localizing import Localizer, default_limit

        with self._lock:
            if self._localizer is None and self._root and self._run and self._options.local_images != 0:
                limit = self._options.local_images
                try:
                    limit = default_limit(Path(self._root)) if limit is None else limit
                except OSError:
                    return None
                self._localizer = Localizer(Path(self._root), Path(self._run), limit)
            return self._localizer

    def _open_keeping(self) -> Keeping | None:
        from lazylayer_frontend_erofs.keeping import open_keeping

        with self._lock:
            if self._keeping is None and self._run:
                self._keeping = open_keeping(self._options.keeper, self._run, self._options.keeper_timeout)
            return self._keeping
