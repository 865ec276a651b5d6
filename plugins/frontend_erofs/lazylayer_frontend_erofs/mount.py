"""Mount a tree: take over the mount of it that a process left, show a local image, or serve the tree."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from lazylayer.api.mounting import MountableTree, MountedTree
from lazylayer.errors import LayerError, MountError
from lazylayer.linux import mounttable
from lazylayer_frontend_erofs.image import Image
from lazylayer_frontend_erofs.keeping import Keeping, Kept
from lazylayer_frontend_erofs.kernel import mount_erofs
from lazylayer_frontend_erofs.localizing import Localizer
from lazylayer_frontend_erofs.machine import explain
from lazylayer_frontend_erofs.metadata_cache import MetadataCache
from lazylayer_frontend_erofs.mounts import ErofsMount, LocalMount, ServedMount, remove_mount
from lazylayer_frontend_erofs.notes import Note
from lazylayer_frontend_erofs.options import Options
from lazylayer_frontend_erofs.serving import make_server, serve_image
from lazylayer_frontend_erofs.writer import Metadata, write_metadata
from lazylayer_frontends import mountcalls

__all__ = ["mount_tree"]


def mount_tree(
    tree: MountableTree,
    mountpoint: str,
    own: Options,
    root: str = "",
    keeping: Keeping | None = None,
    local: Localizer | None = None,
    *,
    suid: bool = True,
) -> MountedTree:
    """Mount `tree`, or take over the mount of it that a process left; it answers when this returns.

    Raises MountError. Finished metadata are kept below the directory `root`, if one is given, and
    mounts by `keeping`. A tree that `local` has as a whole is mounted from there; of the others it
    makes local images once they are complete. Without `suid`, set-user-ID and device files do nothing.
    """
    target = mounttable.real_mountpoint(mountpoint)
    if mounttable.mount_at(target) is None and not Path(target).is_dir():
        raise MountError(f"{mountpoint} is not a directory; make it first")
    image = _open_image(tree, MetadataCache(Path(root), own.metadata_cache) if root else None)
    wanted = _Wanted(tree, image, own, mountpoint, Kept(keeping, target), suid)
    try:
        mount = (
            _take_over(wanted) or (_mount_local(wanted, local) if local is not None else None) or _mount_served(wanted)
        )
    except OSError as error:
        raise MountError(f"{mountpoint} cannot be mounted with EROFS: {explain(error)}") from error
    if local is not None and tree.identity and mount.needs_tree:
        wanted.kept.at_end(local.make_when_complete(mount, tree, image))
    return mount


class _Wanted(NamedTuple):
    """The tree to mount, and where and how."""

    tree: MountableTree
    image: Image
    own: Options
    mountpoint: str
    kept: Kept
    suid: bool

    def attach(self, mounted: int) -> None:
        """Attach a mount to the mountpoint and close its descriptor. Raises OSError."""
        try:
            mountcalls.allow_suid(mounted, allowed=self.suid)
            mountcalls.attach(mounted, self.kept.target)
        finally:
            os.close(mounted)

    def hold(self, mount: ErofsMount, descriptor: int = -1) -> None:
        """Keep a new mount for the next process; `descriptor` serves it, or is -1."""
        self.kept.hold(mount.kernel_mount, self.image.name, self.tree.identity, descriptor)

    def is_shown_by(self, note: Note) -> bool:
        """Return True if the noted mount shows this tree: equal metadata may stand for other data."""
        known = note.identity, note.image
        return bool(self.tree.identity) and known == (self.tree.identity, self.image.name)


def _mount_served(wanted: _Wanted) -> ErofsMount:
    server, mounted = serve_image(wanted.image, wanted.tree.source, wanted.own, wanted.kept.forget)
    wanted.attach(mounted)
    mount = ServedMount(wanted.mountpoint, wanted.kept, server)
    server.store_metadata(wanted.own.stored_metadata)
    with server.descriptor() as descriptor:
        wanted.hold(mount, descriptor)
    return mount


def _take_over(wanted: _Wanted) -> ErofsMount | None:
    """Take over the mount of the same tree that a process left at this place.

    Returns None if there was none. One of another tree, or without its descriptor, is removed first.
    """
    kept = wanted.kept
    taken = kept.take()
    if taken is None:
        return None
    note, descriptor = taken
    on_top = mounttable.mount_at(kept.target)
    if on_top is None or not note.is_of(on_top):
        kept.release(descriptor)
        return None
    if not wanted.is_shown_by(note) or (note.served and descriptor < 0):
        if descriptor >= 0:
            logger.warning("{target}: the mount there shows another tree; it is removed", target=kept.target)
        remove_mount(kept.target)
        kept.release(descriptor)
        return None
    logger.info("the mount at {target} was taken over", target=kept.target)
    mountcalls.allow_suid(kept.target, allowed=wanted.suid)
    return _serve_again(wanted, descriptor) if note.served else LocalMount(wanted.mountpoint, kept)


def _serve_again(wanted: _Wanted, descriptor: int) -> ServedMount:
    """Serve a mount whose last server is gone, on its /dev/fuse."""
    server = make_server(descriptor, wanted.image, wanted.own, wanted.kept.forget)
    server.start()
    try:
        server.resend()
    except OSError as error:
        # The mount has gone meanwhile, which the server sees as well.
        logger.debug("{target}: {error}", target=wanted.kept.target, error=error)
    return ServedMount(wanted.mountpoint, wanted.kept, server)


def _mount_local(wanted: _Wanted, local: Localizer) -> LocalMount | None:
    """Mount the local image; return None if there is none that is known to be good. Raises OSError."""
    identity = wanted.tree.identity
    file = local.images.open(identity, wanted.image) if identity else None
    if file is None:
        return None
    try:
        mounted = mount_erofs(f"/proc/self/fd/{file}", wanted.tree.source, direct=False)
    except OSError as error:
        # The kernel mounts no file of some file systems, tmpfs and overlayfs among them.
        local.give_up(identity, error)
        return None
    finally:
        os.close(file)
    wanted.attach(mounted)
    mount = LocalMount(wanted.mountpoint, wanted.kept)
    wanted.hold(mount)
    return mount


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
