"""The hooks that show trees."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from typing import TYPE_CHECKING

from lazylayer import hookspec

if TYPE_CHECKING:
    import msgspec

    from lazylayer.api import mounting


@hookspec
def lazylayer_probe_frontend(options: msgspec.Struct | None) -> mounting.Works | mounting.Missing:
    """Say whether your frontend works on this machine.

    Only the named frontend is called, before `mount.frontend = "auto"` chooses it.

    :param options: your options, as in `lazylayer_configure`.
    :returns: `Works()`, or `Missing(reason, remedy)`.

    Example::

        @hookimpl
        def lazylayer_probe_frontend():
            return Works() if os.access("/dev/mine", os.W_OK) else Missing("no /dev/mine", "modprobe mine")

    Threading and errors: must not mount anything that stays, nor take longer than a second.
    """


@hookspec
def lazylayer_mount_tree(
    tree: mounting.MountableTree, mountpoint: str, mount_options: mounting.MountOptions, options: msgspec.Struct | None
) -> mounting.MountedTree:
    """Show a tree at a mountpoint, read-only.

    Only the chosen frontend is called.

    :param tree: what to show.
    :param mountpoint: an existing directory, as an absolute path.
    :param mount_options: how to mount: `[mount]` of the settings.
    :param options: your options, as in `lazylayer_configure`.
    :returns: the mount, which answers by the time it is returned.

    Example::

        @hookimpl
        def lazylayer_mount_tree(tree, mountpoint, mount_options):
            return MyMount(tree, mountpoint, mount_options.allow_other)

    Threading and errors: raise MountError. Serve from threads of your own: the caller goes on. Never fork.
    """


@hookspec(firstresult=True)
def lazylayer_recognize_mount(mount: mounting.KernelMount) -> mounting.LeftMount | None:
    """Recognize a mount that your frontend made in another process, or left in this one.

    Stops at the first result that is not None; None means that the mount is not yours.

    :param mount: the topmost mount of a mountpoint (`lazylayer.api.mounting.KernelMount`).
    :returns: an object that says whether the mount's process lives, and removes the mount.

    Example::

        @hookimpl
        def lazylayer_recognize_mount(mount):
            return MyLeftMount(mount) if mount.kind == "fuse.mine" else None

    Threading and errors: answer in two seconds, whether the mount's process is dead, stopped or busy:
    do not look into the mount. Recognize only what is provably yours: it may be removed by force.
    """
