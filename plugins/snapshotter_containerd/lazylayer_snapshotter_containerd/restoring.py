"""Clean up after a predecessor, however it ended, and mount its layers again.

Snapshots whose layer was still being mounted are removed, since no client was told of them; so are directories
and mounts that belong to no snapshot. Remote snapshots are mounted again in the background, several at a time,
from what the caches hold; a layer that is needed earlier is mounted at once. A layer that cannot be mounted is
reported, and tried again when it is used.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from lazylayer.errors import LazylayerError
from lazylayer.linux import mounttable
from lazylayer_snapshotter_containerd.logger import logger
from lazylayer_snapshotter_containerd.remote import is_remote
from lazylayer_snapshotter_containerd.snapshotter import Snapshotter
from lazylayer_snapshotter_containerd.store import Kind, Snapshot, Transaction

__all__ = ["Restorer", "reconcile"]

_AT_ONCE = 16


def reconcile(snapshotter: Snapshotter) -> list[Snapshot]:
    """Clean up, and return the snapshots whose layers are to be mounted again.

    Call it before the snapshotter answers anything. It needs no room on the disk.
    """
    snapshots = snapshotter.store.change_without_room(_without_pending)
    remote = [each for each in snapshots if is_remote(each)]
    layers = {snapshotter.directories.upper(each.id) for each in remote}
    for mount in mounttable.mount_table().below(str(snapshotter.directories.path)):
        mountpoint = os.fsdecode(mount.mountpoint)
        if mountpoint not in layers:
            _remove_left(snapshotter, mountpoint)
    snapshotter.cleanup()
    there = set(snapshotter.directories.names())
    for snapshot in snapshots:
        if str(snapshot.id) not in there and not is_remote(snapshot) and snapshot.kind != Kind.VIEW:
            logger.error("snapshot {name}: its directory {id} is gone", name=snapshot.name, id=snapshot.id)
    return remote


def _without_pending(transaction: Transaction) -> list[Snapshot]:
    for snapshot in transaction.all():
        if snapshot.pending:
            transaction.remove(snapshot.id)
    return transaction.all()


def _remove_left(snapshotter: Snapshotter, mountpoint: str) -> None:
    try:
        snapshotter.layers.remove_left(mountpoint)
    except (LazylayerError, OSError) as error:
        logger.warning("{mountpoint}: left over and not unmounted: {error}", mountpoint=mountpoint, error=error)


class Restorer:
    """A background task that mounts layers again until it is closed."""

    def __init__(self, snapshotter: Snapshotter, snapshots: list[Snapshot]) -> None:
        self._snapshotter = snapshotter
        self._threads = ThreadPoolExecutor(_AT_ONCE, "lazylayer-restore")
        self._closed = threading.Event()
        for snapshot in snapshots:
            self._threads.submit(self._restore, snapshot)

    def close(self) -> None:
        """Begin no more mounts, and do not wait for those under way."""
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def wait(self) -> None:
        """Wait until every layer was tried."""
        self._threads.shutdown(wait=True)

    def _restore(self, snapshot: Snapshot) -> None:
        if self._closed.is_set():
            return
        try:
            self._snapshotter.layers.restore(snapshot, check=False)
        except (LazylayerError, OSError) as error:
            logger.warning(
                "snapshot {name} is not mounted again, and will be tried when it is used: {error}",
                name=snapshot.name,
                error=error,
            )
