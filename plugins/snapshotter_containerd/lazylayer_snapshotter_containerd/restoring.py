"""After a restart: what a predecessor left behind, however it ended, is put in order.

Snapshots whose layer was still being mounted were answered to nobody, and are forgotten; directories
and mounts that belong to no snapshot are removed. Remote snapshots are mounted again in the background,
several at a time, from what the caches hold; what is needed earlier is mounted when it is needed. A
layer that cannot be mounted is reported, and tried again when it is used.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from loguru import logger

from lazylayer.errors import LazylayerError
from lazylayer.linux import mounttable
from lazylayer_snapshotter_containerd.remote import is_remote
from lazylayer_snapshotter_containerd.snapshotter import Snapshotter
from lazylayer_snapshotter_containerd.store import Kind, Snapshot

__all__ = ["Restorer", "reconcile"]

_AT_ONCE = 16


def reconcile(snapshotter: Snapshotter) -> list[Snapshot]:
    """Puts in order what was left behind; returns the snapshots whose layers are to be mounted again.

    To be called before anything else is asked of the snapshotter.
    """
    with snapshotter.store.transaction() as transaction:
        for snapshot in transaction.all():
            if snapshot.pending:
                transaction.remove(snapshot.id)
        snapshots = transaction.all()
    remote = [each for each in snapshots if is_remote(each)]
    layers = {snapshotter.directories.upper(each.id) for each in remote}
    for mount in mounttable.mounts_below(str(snapshotter.directories.path)):
        mountpoint = os.fsdecode(mount.mountpoint)
        if mountpoint not in layers:
            _remove_left(snapshotter, mountpoint)
    snapshotter.cleanup()
    there = set(snapshotter.directories.names())
    for snapshot in snapshots:
        if str(snapshot.id) not in there and not is_remote(snapshot) and snapshot.kind != Kind.VIEW:
            logger.error("snapshot {name}: its directory {id} is gone", name=snapshot.name, id=snapshot.id)
    return remote


def _remove_left(snapshotter: Snapshotter, mountpoint: str) -> None:
    try:
        snapshotter.layers.remove_left(mountpoint)
    except (LazylayerError, OSError) as error:
        logger.warning("{mountpoint}: left over and not unmounted: {error}", mountpoint=mountpoint, error=error)


class Restorer:
    """Mounts layers again in the background until it is closed."""

    def __init__(self, snapshotter: Snapshotter, snapshots: list[Snapshot]) -> None:
        self._snapshotter = snapshotter
        self._threads = ThreadPoolExecutor(_AT_ONCE, "lazylayer-restore")
        self._closed = threading.Event()
        for snapshot in snapshots:
            self._threads.submit(self._restore, snapshot)

    def close(self) -> None:
        """Begins no more mounts; those under way go on without anybody waiting."""
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def wait(self) -> None:
        """Waits until everything was tried."""
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
