"""Check the archives of mounted layers against the chain IDs that they are mounted under.

A layer that is mounted lazily is checked file by file against its table of contents. Its diff ID, the digest of
the plain tar archive, covers more: headers, order and padding, which neither eStargz nor zstd:chunked keeps in its
table. So the archive cannot be rebuilt from what was fetched, and the blob is read once more, as a whole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing

from lazylayer.api.labels import LAYER_SIZE, label_number, layer_source
from lazylayer.api.oci import Descriptor, Reference
from lazylayer.api.sources import BlobSource
from lazylayer.errors import LazylayerError, NotMountedError
from lazylayer_snapshotter_containerd.identity import CHECKED_LABEL, checked_diff_id, is_refused
from lazylayer_snapshotter_containerd.logger import logger
from lazylayer_snapshotter_containerd.problems import NotFoundError
from lazylayer_snapshotter_containerd.remote import is_remote
from lazylayer_snapshotter_containerd.snapshotter import TARGET_LABEL, Snapshotter
from lazylayer_snapshotter_containerd.store import Snapshot
from lazylayer_tarlayers.plainlayer import PlainLayer
from lazylayer_tarlayers.wholeblob import BlobStream

__all__ = ["DiffIdChecker"]

_INTERVAL = 10.0
"""Seconds between two looks for layers that are complete."""


class _StoppedError(Exception):
    """The checker was closed."""


class DiffIdChecker:
    """A thread that reads complete layers, one at a time, and records what their archives are.

    A layer whose archive makes another chain ID is refused from then on; one whose blob cannot be read is tried
    again.

    :param is_complete: returns True if all of the layer at a mountpoint was fetched; raises NotMountedError.
    :param open_blob: opens the blob of a layer.
    """

    def __init__(
        self,
        snapshotter: Snapshotter,
        is_complete: Callable[[str], bool],
        open_blob: Callable[[Reference, Descriptor], BlobSource],
        interval: float = _INTERVAL,
    ) -> None:
        self._snapshotter = snapshotter
        self._is_complete = is_complete
        self._open_blob = open_blob
        self._interval = interval
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="lazylayer-diff-ids", daemon=True).start()

    def close(self) -> None:
        """Stop checking; what was not finished is checked by the next process."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(self._interval):
            with self._snapshotter.store.transaction() as transaction:
                snapshots = [each for each in transaction.all() if _is_unchecked(each)]
            for snapshot in snapshots:
                try:
                    if self._is_complete(self._snapshotter.directories.upper(snapshot.id)):
                        self._check(snapshot)
                except _StoppedError:
                    return
                except NotMountedError:
                    continue
                except LazylayerError as error:
                    name = snapshot.name
                    logger.warning("snapshot {name}: its archive was not checked: {error}", name=name, error=error)

    def _check(self, snapshot: Snapshot) -> None:
        parent = ""
        with self._snapshotter.store.transaction() as transaction:
            _, *below = transaction.chain(snapshot.id)
        if below:
            parent = below[0].labels.get(TARGET_LABEL, "")
            if not parent:
                return  # it was not made for an image: no chain ID says what it is
        checked = checked_diff_id(self._diff_id(snapshot), parent, snapshot.labels[TARGET_LABEL])
        try:
            with self._snapshotter.store.transaction() as transaction:
                labels = transaction.at(snapshot.id).labels
                updated = transaction.set_labels(snapshot.id, {**labels, CHECKED_LABEL: checked})
        except NotFoundError:
            return
        if is_refused(updated.labels):
            logger.error("snapshot {name} is {checked}", name=snapshot.name, checked=checked)

    def _diff_id(self, snapshot: Snapshot) -> str:
        source = layer_source(snapshot.labels)
        descriptor = Descriptor("", source.digest, label_number(snapshot.labels, LAYER_SIZE) or 0)
        with (
            closing(self._open_blob(source.reference, descriptor)) as blob,
            closing(BlobStream(blob, descriptor, self._go_on)) as stream,
            closing(PlainLayer(stream)) as plain,
        ):
            return plain.finish()

    def _go_on(self, size: int) -> None:
        del size
        if self._closed.is_set():
            raise _StoppedError


def _is_unchecked(snapshot: Snapshot) -> bool:
    return is_remote(snapshot) and TARGET_LABEL in snapshot.labels and CHECKED_LABEL not in snapshot.labels
