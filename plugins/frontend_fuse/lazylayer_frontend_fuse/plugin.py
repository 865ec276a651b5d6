"""The plugin: its options, whether FUSE works here, and mounting."""

from __future__ import annotations

from lazylayer import hookimpl
from lazylayer.api.mounting import KernelMount, LeftMount, Missing, MountableTree, MountedTree, MountOptions, Works
from lazylayer.errors import MountError
from lazylayer_frontend_fuse.options import Options

__all__ = ["FrontendFuse"]


class FrontendFuse:
    """The plugin."""

    preference = 50

    @hookimpl
    def lazylayer_probe_frontend(self) -> Works | Missing:
        """Look for /dev/fuse, libfuse 2, and the right to mount."""
        from lazylayer_frontend_fuse.connection import what_is_missing

        return what_is_missing() or Works()

    @hookimpl
    def lazylayer_mount_tree(
        self, tree: MountableTree, mountpoint: str, mount_options: MountOptions, options: Options
    ) -> MountedTree:
        """Mount the tree and serve it from threads of libfuse."""
        try:
            from lazylayer_frontend_fuse.session import mount_tree
        except (ImportError, OSError) as error:  # libfuse, or fusepy, is not installed
            from lazylayer_frontend_fuse.connection import what_is_missing

            reason = what_is_missing() or error
            raise MountError(f"{mountpoint} cannot be mounted with FUSE: {reason}") from error
        return mount_tree(tree, mountpoint, mount_options, options)

    @hookimpl
    def lazylayer_recognize_mount(self, mount: KernelMount) -> LeftMount | None:
        """Recognize FUSE mounts of lazylayer's own type."""
        from lazylayer_frontend_fuse.left import recognize_mount

        return recognize_mount(mount)
