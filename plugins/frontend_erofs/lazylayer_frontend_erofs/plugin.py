"""The plugin: its options, whether EROFS works here, and mounting."""

from __future__ import annotations

from typing import Annotated

import msgspec

from lazylayer import hookimpl
from lazylayer.mounting import MountableTree, MountedTree, MountOptions
from lazylayer.settings import Settings

__all__ = ["NAME", "FrontendErofs", "Options"]

NAME = "frontend_erofs"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.frontend_erofs]`. Sizes in bytes."""

    threads: Annotated[int, msgspec.Meta(ge=2, le=1024)] = 64
    """How many reads of one mount may wait for the network at once."""
    max_read: Annotated[int, msgspec.Meta(ge=4096, le=1024 * 1024, multiple_of=4096)] = 1024 * 1024
    """The largest read that the kernel asks for at once."""
    read_ahead: Annotated[int, msgspec.Meta(ge=0, multiple_of=4096)] = 512 * 1024
    """How far the kernel reads ahead in a file that is read from start to end."""
    max_background: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 128
    """How many reads of one mount the kernel may have under way in the background."""
    stored_metadata: Annotated[int, msgspec.Meta(ge=0)] = 4 * 1024 * 1024
    """How much of a mount's metadata is put into the kernel's cache ahead of use."""
    metadata_cache: Annotated[int, msgspec.Meta(ge=0)] = 256 * 1024 * 1024
    """How many bytes of finished metadata are kept on disk for the next mount of a layer; 0 keeps none."""
    direct: bool = True
    """Whether data go straight to EROFS's page cache; otherwise the kernel keeps two copies."""


class FrontendErofs:
    """The plugin; it keeps its options."""

    def __init__(self) -> None:
        self._options = Options()
        self._root = ""

    @hookimpl
    def lazylayer_configure(self, settings: Settings) -> None:
        """Takes `[plugin.frontend_erofs]`."""
        self._options = settings.plugin_options(NAME, Options)
        self._root = settings.root

    @hookimpl
    def lazylayer_probe_frontend(self, frontend: str) -> str | None:
        """Mounts a tiny image, which stays hidden, and looks whether a failing read fails."""
        if frontend != NAME:
            return None
        from lazylayer_frontend_erofs.probe import what_is_missing

        return what_is_missing()

    @hookimpl
    def lazylayer_mount_tree(self, tree: MountableTree, mountpoint: str, options: MountOptions) -> MountedTree | None:
        """Writes the metadata and mounts; the data are served from threads."""
        if options.frontend != NAME:
            return None
        from lazylayer_frontend_erofs.mount import mount_tree

        return mount_tree(tree, mountpoint, self._options, self._root)
