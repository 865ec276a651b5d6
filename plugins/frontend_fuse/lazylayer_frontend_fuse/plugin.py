"""The plugin: its options, whether FUSE works here, and mounting."""

from __future__ import annotations

import os
from typing import Annotated

import msgspec

from lazylayer import hookimpl
from lazylayer.errors import MountError
from lazylayer.kernelmounts import KernelMount
from lazylayer.mounting import MountableTree, MountedTree, MountOptions
from lazylayer.settings import Settings

__all__ = ["NAME", "FrontendFuse", "Options"]

NAME = "frontend_fuse"

_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.frontend_fuse]`. Times in seconds, sizes in bytes.

    Layers never change, so the kernel may keep what it was told for as long as it likes.
    """

    attribute_timeout: _Seconds = 3600.0
    """How long the kernel keeps a file's attributes."""
    entry_timeout: _Seconds = 3600.0
    """How long the kernel keeps what a name leads to."""
    negative_timeout: _Seconds = 3600.0
    """How long the kernel keeps that a name does not exist."""
    kernel_cache: bool = True
    """Whether the page cache outlives the last close of a file."""
    threads: bool = True
    """Whether requests are served at the same time; without, one slow read holds up everything."""
    keep_thread_state: bool = True
    """Whether Python keeps its state between two requests that one thread serves: faster by half."""
    max_background: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 64
    """How many read-aheads the kernel may have under way at once."""
    max_read: Annotated[int, msgspec.Meta(ge=4096, le=1024 * 1024)] = 128 * 1024
    """The largest read that the kernel asks for at once; libfuse 2 takes at most 128 KiB."""


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
