"""Mount, check, restore and unmount the layers of remote snapshots.

One snapshot's layer is mounted by one thread at a time; different layers at the same time. The locks are
`RemoteLayers._lock`, held for moments only, and one for each snapshot that is being mounted.
"""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Protocol

from lazylayer.errors import LazylayerError, MountError, NotMountedError
from lazylayer.linux import mounttable
from lazylayer_snapshotter_containerd.directories import Directories
from lazylayer_snapshotter_containerd.identity import CHECKED_LABEL, is_refused
from lazylayer_snapshotter_containerd.labels import label_annotations
from lazylayer_snapshotter_containerd.logger import logger
from lazylayer_snapshotter_containerd.problems import UnavailableError
from lazylayer_snapshotter_containerd.store import Snapshot

__all__ = ["REMOTE_LABEL", "LayerFilesystem", "RemoteLayers", "is_remote"]

REMOTE_LABEL = "containerd.io/snapshot/remote"
"""The label of a committed snapshot whose layer is mounted; its value has no meaning."""

_CHECKS_AT_ONCE = 32
_DESCRIPTORS_FOR_MOUNTS = 0.8
"""The part of this process's descriptors that new mounts may use; the rest is for readers, and calls of containerd."""


class LayerFilesystem(Protocol):
    """The part of `lazylayer.mounts.Filesystem` that is used here; see there."""

    def mount(self, mountpoint: str, labels: Mapping[str, str], *, check: bool = True) -> None:
        """Mount the layer that the labels name."""

    def check(self, mountpoint: str, *, wait: bool = True) -> None:
        """Return if the mount can be used now."""

    def unmount(self, mountpoint: str, *, force: bool = False) -> None:
        """Unmount."""

    def remove_left(self, mountpoint: str) -> None:
        """Remove a mount of ours that a dead process left."""

    def disk_usage(self, mountpoint: str) -> int:
        """Return the bytes on disk that belong to the mounted layer."""

    def close(self, *, leave: bool = False) -> None:
        """Unmount everything; with `leave`, all mounts that cannot outlive the process."""


def _spare_descriptors() -> None:
    """Raise MountError if a new mount would take the descriptors that answers and reads need."""
    used, limit = len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # noqa: PTH208
    if used > _DESCRIPTORS_FOR_MOUNTS * limit:
        raise MountError(f"{used} of {limit} descriptors are in use; raise LimitNOFILE of the daemon")


def is_remote(snapshot: Snapshot) -> bool:
    """Return True if the snapshot is a mounted layer."""
    return REMOTE_LABEL in snapshot.labels


class RemoteLayers:
    """The layers of remote snapshots. Safe to use from any thread.

    With `wait_for_prefetch`, a check waits for a prefetch that is under way.
    """

    def __init__(
        self, filesystem: LayerFilesystem, directories: Directories, *, wait_for_prefetch: bool = False
    ) -> None:
        self._filesystem = filesystem
        self._wait_for_prefetch = wait_for_prefetch
        self._directories = directories
        self._lock = threading.Lock()
        self._busy: dict[int, tuple[threading.Lock, int]] = {}
        # Mounted, and not being mounted again: a filesystem's answers about a mount under way are not reliable.
        self._mounted: set[int] = set()

    def mount(self, number: int, labels: Mapping[str, str]) -> None:
        """Mount the layer of a new snapshot. Raises LazylayerError and OSError; nothing is mounted then."""
        with self._alone(number):
            _spare_descriptors()
            self._filesystem.mount(self._directories.upper(number), label_annotations(labels))
            self._mounted.add(number)

    def restore(self, snapshot: Snapshot, *, check: bool) -> None:
        """Mount the layer of a remote snapshot again, unless it is mounted.

        A mount that outlived its process is taken over by the frontend; one that did not is removed.
        With `check`, the layer's source must answer. Raises LazylayerError and OSError.
        """
        with self._alone(snapshot.id):
            if self._is_mounted(snapshot.id):
                return
            self._mounted.discard(snapshot.id)
            mountpoint = self._directories.upper(snapshot.id)
            if not mounttable.is_mounted(mountpoint):
                self._directories.ensure(snapshot.id)
            self._filesystem.mount(mountpoint, label_annotations(snapshot.labels), check=check)
            self._mounted.add(snapshot.id)

    def check(self, snapshots: Sequence[Snapshot]) -> None:
        """Return if every remote layer among these can be used now; mount those that are not mounted.

        All are checked at the same time, and the first failure ends it. Raises UnavailableError,
        which names the layer and the reason.
        """
        remote = [each for each in snapshots if is_remote(each)]
        for snapshot in remote:
            if is_refused(snapshot.labels):
                reason = snapshot.labels[CHECKED_LABEL]
                raise UnavailableError(
                    f"layer {snapshot.id} ({snapshot.name}): {reason}; remove the images that contain it"
                )
        if len(remote) <= 1:
            for snapshot in remote:
                self._check(snapshot)
            return
        threads = ThreadPoolExecutor(min(len(remote), _CHECKS_AT_ONCE), "lazylayer-check")
        try:
            done, _ = wait([threads.submit(self._check, each) for each in remote], return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def is_busy(self, number: int) -> bool:
        """Return True if the layer of a snapshot is being mounted."""
        with self._lock:
            return number in self._busy

    def disk_usage(self, snapshot: Snapshot) -> int | None:
        """Return the bytes on disk of the snapshot's layer, or None if it is not mounted."""
        try:
            return self._filesystem.disk_usage(self._directories.upper(snapshot.id))
        except NotMountedError:
            return None

    def unmount(self, number: int) -> None:
        """Unmount the layer of a removed snapshot, if there is one. Raises MountError."""
        mountpoint = self._directories.upper(number)
        self._mounted.discard(number)
        try:
            self._filesystem.unmount(mountpoint)
        except NotMountedError:
            self.remove_left(mountpoint)
        except MountError as error:
            logger.debug("{error}; unmounting it by force", error=error)
            self._filesystem.unmount(mountpoint, force=True)

    def remove_left(self, mountpoint: str) -> None:
        """Remove a mount that a dead process of ours left, if there is one; another's stays. Raises MountError."""
        with contextlib.suppress(NotMountedError):
            self._filesystem.remove_left(mountpoint)

    def _check(self, snapshot: Snapshot) -> None:
        try:
            if snapshot.id not in self._mounted:
                self.restore(snapshot, check=True)
                return
            try:
                mountpoint = self._directories.upper(snapshot.id)
                self._filesystem.check(mountpoint, wait=self._wait_for_prefetch)
            except NotMountedError:
                self.restore(snapshot, check=True)
        except (LazylayerError, OSError) as error:
            logger.warning("snapshot {name} is unavailable: {error}", name=snapshot.name, error=error)
            raise UnavailableError(f"layer {snapshot.id} ({snapshot.name}) is unavailable: {error}") from error

    def _is_mounted(self, number: int) -> bool:
        if number not in self._mounted:
            return False
        try:
            self._filesystem.disk_usage(self._directories.upper(number))
        except NotMountedError:
            return False
        return True

    @contextmanager
    def _alone(self, number: int) -> Iterator[None]:
        with self._lock:
            lock, users = self._busy.get(number, (threading.Lock(), 0))
            self._busy[number] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, users = self._busy.pop(number)
                if users > 1:
                    self._busy[number] = (lock, users - 1)
