"""How a mount is made: from a local image, served by this process, or taken up as the last process left it."""

from __future__ import annotations

import os
from pathlib import Path

from loguru import logger

from lazylayer.api.mounting import MountableTree, MountedTree
from lazylayer.errors import LayerError, MountError
from lazylayer.linux import mountcalls, mounttable
from lazylayer_frontend_erofs.image import Image
from lazylayer_frontend_erofs.keeping import Keeping
from lazylayer_frontend_erofs.kept import Kept
from lazylayer_frontend_erofs.kernel import mount_erofs
from lazylayer_frontend_erofs.localizing import Localizer
from lazylayer_frontend_erofs.metadata_cache import MetadataCache
from lazylayer_frontend_erofs.mounts import ErofsMount, LocalMount, ServedMount, explain
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
    """Mounts `tree`, or takes up the mount of it that was left; it answers when this returns. Raises MountError.

    Finished metadata are kept below the directory `root`, if one is given, and mounts by `keeping`. What
    `local` has a whole image of is mounted from that; of the others it makes one when they are complete.
    """
    if not Path(mountpoint).is_dir():
        raise MountError(f"{mountpoint} is not a directory; make it first")
    image = _open_image(tree, MetadataCache(Path(root), own.metadata_cache) if root else None)
    target = os.path.realpath(mountpoint)
    kept = Kept(keeping, target)
    noted = Kept(local.notes if local is not None else None, target)
    try:
        mount = _take_up(image, own, kept, noted, mountpoint)
        if mount is None and local is not None and _mount_local(image, tree, noted, local):
            mount = LocalMount(mountpoint, target, noted.forget)
            noted.hold(mount.device, image.name, -1)
        if mount is None:
            mount = _mount_served(image, tree, own, kept, mountpoint)
    except OSError as error:
        raise MountError(f"{mountpoint} cannot be mounted with EROFS: {explain(error)}") from error
    if local is not None and tree.identity and mount.needs_tree:
        local.wish(mount, tree, image)
    return mount


def _mount_served(image: Image, tree: MountableTree, own: Options, kept: Kept, mountpoint: str) -> ErofsMount:
    server, mounted = serve_image(image, tree.source, own, kept.forget)
    try:
        mountcalls.attach(mounted, kept.target)
    finally:
        os.close(mounted)
    mount = ServedMount(mountpoint, kept.target, server, kept)
    server.store_metadata(own.stored_metadata)
    kept.hold(mount.device, image.name, server.descriptor)
    return mount


def _take_up(image: Image, own: Options, kept: Kept, noted: Kept, mountpoint: str) -> ErofsMount | None:
    """The mount that was left at this place; None if there was none, or one of another tree, which is unmounted."""
    if _is_left(image, noted) is not None:
        return LocalMount(mountpoint, noted.target, noted.forget)
    device = _is_left(image, kept)
    if device is None:
        return None
    server = make_server(device, image, own, kept.forget)
    server.start()
    try:
        server.resend()
    except OSError as error:
        # The mount has gone meanwhile, which the server sees as well.
        logger.debug("{target}: {error}", target=kept.target, error=error)
    logger.info("the mount at {target} was taken up again", target=kept.target)
    return ServedMount(mountpoint, kept.target, server, kept)


def _is_left(image: Image, kept: Kept) -> int | None:
    """What serves the mount that was left, if it is there and shows this image."""
    taken = kept.take()
    if taken is None:
        return None
    note, descriptor = taken
    target = kept.target
    on_top = mounttable.mount_at(target)
    if on_top is not None and on_top.device == note.device and note.image == image.name:
        return descriptor
    kept.release(descriptor)
    if on_top is not None and on_top.device == note.device:
        logger.warning("{target}: what was mounted there shows another tree; it is unmounted", target=target)
        mountcalls.unmount(target, force=True)
    return None


def _mount_local(image: Image, tree: MountableTree, noted: Kept, local: Localizer) -> bool:
    """Mounts the local image, if there is one that is known to be good; whether it did. Raises OSError."""
    file = local.images.open(tree.identity, image) if tree.identity else None
    if file is None:
        return False
    try:
        mounted = mount_erofs(f"/proc/self/fd/{file}", tree.source, direct=False)
    except OSError as error:
        # The kernel mounts no file of some file systems, tmpfs and overlayfs among them.
        local.give_up(tree.identity, error)
        return False
    finally:
        os.close(file)
    try:
        mountcalls.attach(mounted, noted.target)
    finally:
        os.close(mounted)
    return True


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
