"""Mount a tree: take over the mount of it that a process left, show a local image, or serve the tree."""

from __future__ import annotations

import os
from pathlib import Path

from loguru import logger

from lazylayer.api.mounting import MountableTree, MountedTree
from lazylayer.errors import LayerError, MountError
from lazylayer.linux import mountcalls, mounttable
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

__all__ = ["mount_tree"]


def mount_tree(
    tree: MountableTree,
    mountpoint: str,
    own: Options,
    root: str = "",
    keeping: Keeping | None = None,
    local: Localizer | None = None,
) -> MountedTree:
    """Mount `tree`, or take over the mount of it that a process left; it answers when this returns.

    Raises MountError. Finished metadata are kept below the directory `root`, if one is given, and
    mounts by `keeping`. A tree that `local` has as a whole is mounted from there; of the others it
    makes local images once they are complete.
    """
    target = mounttable.real_mountpoint(mountpoint)
    if mounttable.mount_at(target) is None and not Path(target).is_dir():
        raise MountError(f"{mountpoint} is not a directory; make it first")
    image = _open_image(tree, MetadataCache(Path(root), own.metadata_cache) if root else None)
    kept = Kept(keeping, target)
    try:
        mount = (
            _take_over(image, tree, own, kept, mountpoint)
            or (_mount_local(image, tree, kept, local, mountpoint) if local is not None else None)
            or _mount_served(image, tree, own, kept, mountpoint)
        )
    except OSError as error:
        raise MountError(f"{mountpoint} cannot be mounted with EROFS: {explain(error)}") from error
    if local is not None and tree.identity and mount.needs_tree:
        kept.at_end(local.make_when_complete(mount, tree, image))
    return mount


def _mount_served(image: Image, tree: MountableTree, own: Options, kept: Kept, mountpoint: str) -> ErofsMount:
    server, mounted = serve_image(image, tree.source, own, kept.forget)
    try:
        mountcalls.attach(mounted, kept.target)
    finally:
        os.close(mounted)
    mount = ServedMount(mountpoint, kept, server)
    server.store_metadata(own.stored_metadata)
    with server.descriptor() as descriptor:
        kept.hold(mount.kernel_mount, image.name, tree.identity, descriptor)
    return mount


def _take_over(image: Image, tree: MountableTree, own: Options, kept: Kept, mountpoint: str) -> ErofsMount | None:
    """Take over the mount of the same tree that a process left at this place.

    Returns None if there was none. One of another tree, or without its descriptor, is removed first.
    """
    taken = kept.take()
    if taken is None:
        return None
    note, descriptor = taken
    on_top = mounttable.mount_at(kept.target)
    if on_top is None or not note.is_of(on_top):
        kept.release(descriptor)
        return None
    if not _shows(note, tree, image) or (note.served and descriptor < 0):
        if descriptor >= 0:
            logger.warning("{target}: the mount there shows another tree; it is removed", target=kept.target)
        remove_mount(kept.target)
        kept.release(descriptor)
        return None
    logger.info("the mount at {target} was taken over", target=kept.target)
    if not note.served:
        return LocalMount(mountpoint, kept)
    server = make_server(descriptor, image, own, kept.forget)
    server.start()
    try:
        server.resend()
    except OSError as error:
        # The mount has gone meanwhile, which the server sees as well.
        logger.debug("{target}: {error}", target=kept.target, error=error)
    return ServedMount(mountpoint, kept, server)


def _shows(note: Note, tree: MountableTree, image: Image) -> bool:
    """Return True if the noted mount shows `tree`: equal metadata may stand for other data."""
    return bool(tree.identity) and (note.identity, note.image) == (tree.identity, image.name)


def _mount_local(image: Image, tree: MountableTree, kept: Kept, local: Localizer, mountpoint: str) -> LocalMount | None:
    """Mount the local image; return None if there is none that is known to be good. Raises OSError."""
    file = local.images.open(tree.identity, image) if tree.identity else None
    if file is None:
        return None
    try:
        mounted = mount_erofs(f"/proc/self/fd/{file}", tree.source, direct=False)
    except OSError as error:
        # The kernel mounts no file of some file systems, tmpfs and overlayfs among them.
        local.give_up(tree.identity, error)
        return None
    finally:
        os.close(file)
    try:
        mountcalls.attach(mounted, kept.target)
    finally:
        os.close(mounted)
    mount = LocalMount(mountpoint, kept)
    kept.hold(mount.kernel_mount, image.name, tree.identity)
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
