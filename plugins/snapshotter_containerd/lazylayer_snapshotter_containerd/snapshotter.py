"""What containerd's snapshots mean here: the semantics of its snapshotters, with layers that are mounted.

A Prepare whose labels name a target (`containerd.io/snapshot.ref`) is a question: can the layer be had
without unpacking it? If it can be mounted, the snapshot is committed and the answer is
AlreadyExistsError; if not, it becomes an ordinary snapshot, which containerd unpacks into.

containerd finds what was committed by label and parent (`metadata/snapshot.go`), not by name. So where
a namespace has the same layer on a parent of its own, that becomes a second snapshot, named after the
target and its number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from loguru import logger

from lazylayer.errors import LazylayerError
from lazylayer_snapshotter_containerd.api.types import Mount
from lazylayer_snapshotter_containerd.directories import Directories, measure
from lazylayer_snapshotter_containerd.filters import parse_filters
from lazylayer_snapshotter_containerd.problems import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
)
from lazylayer_snapshotter_containerd.remote import REMOTE_LABEL, LayerFilesystem, RemoteLayers, is_remote
from lazylayer_snapshotter_containerd.store import Kind, Snapshot, Store, Transaction

__all__ = ["FALLBACK_LABEL", "TARGET_LABEL", "Snapshotter"]

TARGET_LABEL = "containerd.io/snapshot.ref"
"""The chain ID of the layer that a Prepare is for."""

FALLBACK_LABEL = "containerd.io/snapshot/remote/lazylayer.fallback"
"""On an active snapshot with a target: why its layer could not be mounted."""

LOG_KEY = "remote-snapshot-prepared"
"""The field of the log that says `true` or `false` for each target, as the Go stargz-snapshotter's does."""

_OURS = "containerd.io/snapshot"
_REASON_LENGTH = 1024


class Snapshotter:
    """The snapshots below `root`, an absolute path. Safe to use from any thread.

    With `wait_for_prefetch`, containers are made when the prefetch of their layers is over.
    """

    def __init__(self, root: Path, filesystem: LayerFilesystem, *, wait_for_prefetch: bool = False) -> None:
        self.directories = Directories(root)
        self.layers = RemoteLayers(filesystem, self.directories, wait_for_prefetch=wait_for_prefetch)
        self.store = Store(root / "metadata.sqlite")

    def close(self) -> None:
        """Closes the database; mounts are the filesystem's. Idempotent."""
        self.store.close()

    # --- making snapshots --------------------------------------------------------------------------

    def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> list[Mount]:
        """Makes an active snapshot and says how to mount it.

        Raises AlreadyExistsError if `key` is taken, or if the target that the labels name is there;
        UnavailableError if a parent cannot be read; NotFoundError and InvalidArgumentError.
        """
        labels = _without_remote(labels)
        target = labels.get(TARGET_LABEL, "")
        if not target:
            return self._create(Kind.ACTIVE, key, parent, labels)
        with self.store.transaction() as transaction:
            if _find_target(transaction, target, parent) is not None:
                raise _there_already(target)
            snapshot = transaction.create(Kind.ACTIVE, key, parent, labels, pending=True)
            self.directories.create(snapshot)
        if self._mount_target(snapshot, target):
            raise _there_already(target)
        return self._finish(snapshot)

    def view(self, key: str, parent: str, labels: Mapping[str, str]) -> list[Mount]:
        """Makes a read-only snapshot and says how to mount it. Raises as `prepare` without target."""
        return self._create(Kind.VIEW, key, parent, _without_remote(labels))

    def mounts(self, key: str) -> list[Mount]:
        """How to mount a view or an active snapshot.

        Raises UnavailableError if it or a parent cannot be read, NotFoundError, and
        FailedPreconditionError for a committed snapshot.
        """
        with self.store.transaction() as transaction:
            snapshot, *parents = transaction.chain(key)
        if snapshot.kind == Kind.COMMITTED:
            raise FailedPreconditionError(f"snapshot {key} is committed; prepare or view a snapshot on it")
        self.layers.check(parents)
        return self.directories.mounts(snapshot, _numbers(parents))

    def commit(self, key: str, name: str, labels: Mapping[str, str], parent: str = "") -> None:
        """Makes an active snapshot the committed snapshot `name`. Raises as `Transaction.commit`."""
        with self.store.transaction() as transaction:
            snapshot = transaction.get(key)
        size, inodes = measure(self.directories.upper(snapshot.id)) if snapshot.kind == Kind.ACTIVE else (0, 0)
        with self.store.transaction() as transaction:
            transaction.commit(key, name, _without_remote(labels), size, inodes, parent)

    # --- what there is -----------------------------------------------------------------------------

    def stat(self, key: str) -> Snapshot:
        """What is known of a snapshot. Raises NotFoundError."""
        with self.store.transaction() as transaction:
            return transaction.get(key)

    def find(self, filters: Iterable[str] = ()) -> list[Snapshot]:
        """The snapshots that match one of containerd's filters. Raises InvalidArgumentError."""
        matches = parse_filters(filters)
        with self.store.transaction() as transaction:
            snapshots = transaction.all()
        return [each for each in snapshots if matches(each)]

    def update(self, name: str, labels: Mapping[str, str], paths: Sequence[str] = ()) -> Snapshot:
        """Changes labels: all, or those that `paths` (`labels`, `labels.NAME`) name.

        An empty value removes the label. A remote snapshot keeps the labels by which it is mounted.
        Raises NotFoundError, and InvalidArgumentError for paths of what cannot be changed.
        """
        with self.store.transaction() as transaction:
            snapshot = transaction.get(name)
            changed = dict(snapshot.labels) if paths else dict(labels)
            for path in paths:
                if path == "labels":
                    changed = dict(labels)
                elif path.startswith("labels."):
                    label = path.removeprefix("labels.")
                    changed[label] = labels.get(label, "")
                else:
                    raise InvalidArgumentError(f"snapshot {name}: {path!r} cannot be changed")
            if is_remote(snapshot):
                changed |= {key: value for key, value in snapshot.labels.items() if key.startswith(_OURS)}
            else:
                changed = _without_remote(changed)
            return transaction.set_labels(name, {key: value for key, value in changed.items() if value})

    def usage(self, key: str) -> tuple[int, int]:
        """Bytes on disk, and inodes, of a snapshot without its parents. Raises NotFoundError.

        For a remote snapshot these are the bytes of its layer that were fetched, and no inodes.
        """
        snapshot = self.stat(key)
        if snapshot.kind == Kind.ACTIVE:
            return measure(self.directories.upper(snapshot.id))
        size = self.layers.disk_usage(snapshot) if is_remote(snapshot) else None
        return (snapshot.size, snapshot.inodes) if size is None else (size, 0)

    # --- letting go --------------------------------------------------------------------------------

    def remove(self, key: str) -> None:
        """Forgets a snapshot; `cleanup` removes its directory.

        Raises NotFoundError, and FailedPreconditionError for a snapshot with children.
        """
        with self.store.transaction() as transaction:
            transaction.remove(key)

    def cleanup(self) -> None:
        """Unmounts and removes the directories of snapshots that are gone. What fails is tried next time."""
        with self.store.transaction() as transaction:  # nobody makes a directory meanwhile
            known = {str(each.id) for each in transaction.all()}
            surplus = [name for name in self.directories.names() if name not in known]
        for name in surplus:
            self._remove_directory(name)

    # --- parts -------------------------------------------------------------------------------------

    def _create(self, kind: Kind, key: str, parent: str, labels: Mapping[str, str]) -> list[Mount]:
        with self.store.transaction() as transaction:
            parents = transaction.chain(parent) if parent else []
        self.layers.check(parents)
        with self.store.transaction() as transaction:
            snapshot = transaction.create(kind, key, parent, labels)
            self.directories.create(snapshot)
        return self._finish(snapshot, checked=True)

    def _finish(self, snapshot: Snapshot, *, checked: bool = False) -> list[Mount]:
        """How to mount a new snapshot, now that everything else is done; it is gone if this fails."""
        try:
            with self.store.transaction() as transaction:
                _, *parents = transaction.chain(snapshot.name)
            if not checked:
                self.layers.check(parents)
            if parents:
                self.directories.take_owner(snapshot.id, parents[0].id)
        except (LazylayerError, OSError):
            self._abandon(snapshot)
            raise
        return self.directories.mounts(snapshot, _numbers(parents))

    def _mount_target(self, snapshot: Snapshot, target: str) -> bool:
        """Makes the active snapshot a committed one with its layer mounted; False if that cannot be."""
        log = logger.bind(key=snapshot.name, parent=snapshot.parent)
        try:
            self.layers.mount(snapshot.id, snapshot.labels)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the layer can be unpacked instead
            reason = str(error) or repr(error)
            log.bind(**{LOG_KEY: "false"}).warning(
                "{key}: not mounted lazily, containerd will unpack it: {reason}", key=snapshot.name, reason=reason
            )
            with self.store.transaction() as transaction:
                transaction.set_labels(snapshot.name, {**snapshot.labels, FALLBACK_LABEL: reason[:_REASON_LENGTH]})
            return False
        try:
            committed = self._commit_target(snapshot, target)
        except BaseException:
            self._remove_directory(str(snapshot.id))
            raise
        if not committed:
            self._remove_directory(str(snapshot.id))
        log.bind(**{LOG_KEY: "true"}).debug("{key}: mounted as {target}", key=snapshot.name, target=target)
        return True

    def _commit_target(self, snapshot: Snapshot, target: str) -> bool:
        """False if somebody else has committed the same meanwhile; the active snapshot is gone then."""
        with self.store.transaction() as transaction:
            if _find_target(transaction, target, snapshot.parent) is not None:
                transaction.remove(snapshot.name)
                return False
            labels = {**snapshot.labels, REMOTE_LABEL: "remote snapshot"}
            name = f"{target}@{snapshot.id}" if _exists(transaction, target) else target
            transaction.commit(snapshot.name, name, labels, 0, 0)
            return True

    def _abandon(self, snapshot: Snapshot) -> None:
        with self.store.transaction() as transaction:
            transaction.remove(snapshot.name)
        self._remove_directory(str(snapshot.id))

    def _remove_directory(self, name: str) -> None:
        try:
            if name.isdigit():
                self.layers.unmount(int(name))
            self.directories.remove(name)
        except (LazylayerError, OSError) as error:
            logger.warning("the directory {name} is not removed yet: {error}", name=name, error=error)


def _without_remote(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels without those that only we may set."""
    return {key: value for key, value in labels.items() if key not in (REMOTE_LABEL, FALLBACK_LABEL)}


def _find_target(transaction: Transaction, target: str, parent: str) -> Snapshot | None:
    found = transaction.committed_with(TARGET_LABEL, target, parent)
    return found if found is not None and is_remote(found) else None


def _exists(transaction: Transaction, name: str) -> bool:
    try:
        transaction.get(name)
    except NotFoundError:
        return False
    return True


def _there_already(target: str) -> AlreadyExistsError:
    return AlreadyExistsError(f"target snapshot {target!r}: already exists")


def _numbers(snapshots: Sequence[Snapshot]) -> list[int]:
    return [each.id for each in snapshots]
