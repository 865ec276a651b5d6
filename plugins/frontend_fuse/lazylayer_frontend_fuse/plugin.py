"""The plugin: its options, whether FUSE works here, and mounting."""

from __future__ import annotations

import os

from lazylayer import hookimpl
from lazylayer.api.mounting import KernelMount, MountableTree, MountedTree, MountOptions
from lazylayer.api.settings import Settings
from lazylayer.errors import MountError
from lazylayer_frontend_fuse.options import NAME, Options

__all__ = ["FrontendFuse"]


class FrontendFuse:
    """The plugin; it keeps its options."""

    def __init__(self) -> None:
        self._options = Options()

    @hookimpl
    def lazylayer_configure(self, settings: Settings) -> None:
        """Takes `[plugin.frontend_fuse]`."""
        self._options = settings.plugin_options(NAME, Options)

    @hookimpl
    def lazylayer_probe_frontend(self, frontend: str) -> str | None:
        """Looks for /dev/fuse, libfuse 2, and the right to mount."""
        if frontend != NAME:
            return None
        from lazylayer_frontend_fuse.connection import what_is_missing

        return what_is_missing()

    @hookimpl
    def lazylayer_mount_tree(self, tree: MountableTree, mountpoint: str, options: MountOptions) -> MountedTree | None:
        """Mounts the tree and serves it from threads of libfuse."""
        if options.frontend != NAME:
            return None
        from lazylayer_frontend_fuse.session import mount_tree

        return mount_tree(tree, mountpoint, options, self._options)

    @hookimpl
    def lazylayer_remove_mount(self, mount: KernelMount) -> bool | None:
        """Unmounts what is FUSE's and ours; readers get errors already, since nobody serves it."""
        from lazylayer_frontend_fuse import connection

        if mount.kind != connection.KIND:
            return None
        target = os.fsdecode(mount.mountpoint)
        try:
            connection.disconnect(target, force=True)
        except OSError as error:
            raise MountError(f"{target} cannot be unmounted: {error.strerror}") from error
        return True
