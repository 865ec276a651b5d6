"""Give containerd's snapshots their meaning: that of its own snapshotters, with layers that are mounted.

A Prepare whose labels name a target (`containerd.io/snapshot.ref`) is a question: can the layer be had
without unpacking it? If it can be mounted, the snapshot is committed and the answer is
AlreadyExistsError; if not, it becomes an ordinary snapshot, which containerd unpacks into.

containerd finds what was committed by label and parent (`metadata/snapshot.go`), not by name. So if
a namespace has the same layer on a parent of its own, that becomes a second snapshot, named after the
target and its number. A layer that is mounted under the target but is not the one that is wanted is never
the answer: then containerd unpacks, and checks what it unpacked.

`scope` is the name that containerd has for this snapshotter; each has its own snapshots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lazylayer.errors import LazylayerError
from lazylayer_snapshotter_containerd.ahead import LayersAhead
from lazylayer_snapshotter_containerd.api.types import Mount
from lazylayer_snapshotter_containerd.directories import Directories, measure
from lazylayer_snapshotter_containerd.filters import parse_filters
from lazylayer_snapshotter_containerd.identity import CHECKED_LABEL, FormatLabels, may_stand_in
from lazylayer_snapshotter_containerd.labels import mount_labels
from lazylayer_snapshotter_containerd.logger import logger
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
"""On an active snapshot with a target: the reason why its layer was not mounted."""

LOG_KEY = "remote-snapshot-prepared"
"""The log field that is `true` or `false` for each target, as the Go stargz-snapshotter's is."""

_OURS = frozenset((REMOTE_LABEL, FALLBACK_LABEL, CHECKED_LABEL))
_REASON_LENGTH = 1024
_UNMEASURED = -1
"""The size, in the database, of a snapshot that is measured when its usage is asked for."""


class Snapshotter:
    """The snapshots below `root`, an absolute path. Safe to use from any thread.

    :param formats: the names of labels that formats read: these are part of a mount.
    :param wait_for_prefetch: create containers only when the prefetch of their layers is over.
    :param measured_within: seconds that a Commit measures files for; what takes longer is measured for Usage.
    """

    def __init__(
        self,
        root: Path,
        filesystem: LayerFilesystem,
        formats: FormatLabels,
        *,
        wait_for_prefetch: bool = False,
        measured_within: float = 2.0,
    ) -> None:
        self.directories = Directories(root)
        self.layers = RemoteLayers(filesystem, self.directories, wait_for_prefetch=wait_for_prefetch)
        self.store = Store(root / "metadata.sqlite")
        self.ahead = LayersAhead(self.store, self.directories, self.layers, formats, self._abandon)
        self._formats = formats
        self._measured_within = measured_within

    def close(self) -> None:
        """Close the database; mounts are the filesystem's. Idempotent."""
        self.store.close()

    # --- making snapshots --------------------------------------------------------------------------

    def prepare(self, scope: str, key: str, parent: str, labels: Mapping[str, str]) -> list[Mount]:
        """Make an active snapshot and return its mounts.

        Raises AlreadyExistsError if `key` is taken, or if the target that the labels name is there;
        UnavailableError if a parent cannot be read; NotFoundError and InvalidArgumentError.
        """
        labels = _without_ours(labels)
        target = labels.get(TARGET_LABEL, "")
        if not target:
            return self._create(scope, Kind.ACTIVE, key, parent, labels)
        ahead = self.ahead.take(scope, target, labels)
        failure = ahead.failure() if ahead is not None else ""
        snapshot, committed = None, False
        try:
            with self.store.transaction(scope) as transaction:
                there, reason = self._look_for(transaction, target, parent, labels)
                reason = reason or failure
                if not there and not reason and ahead is not None:
                    self._commit(transaction, transaction.take_over(ahead.snapshot.id, parent).id, target, labels)
                    there = committed = True
                elif not there:
                    if reason:
                        labels[FALLBACK_LABEL] = reason[:_REASON_LENGTH]
                    snapshot = transaction.create(Kind.ACTIVE, key, parent, labels, pending=not reason)
                    self.directories.create(snapshot)
            if ahead is not None:
                ahead.committed = committed
        finally:
            if ahead is not None and not ahead.committed:
                self.ahead.discard(ahead)
        if snapshot is None:
            log = logger.bind(key=key, parent=parent, **{LOG_KEY: "true"})
            log.debug("{key}: there already as {target}", key=key, target=target)
            raise _there_already(target)
        if reason:
            _log_fallback(snapshot, reason)
        elif self._mount_target(snapshot, target):
            raise _there_already(target)
        return self._finish(snapshot)

    def view(self, scope: str, key: str, parent: str, labels: Mapping[str, str]) -> list[Mount]:
        """Make a read-only snapshot and return its mounts. Raises as `prepare` without target."""
        return self._create(scope, Kind.VIEW, key, parent, _without_ours(labels))

    def mounts(self, scope: str, key: str) -> list[Mount]:
        """Return the mounts of a view or an active snapshot.

        Raises UnavailableError if it or a parent cannot be read, NotFoundError, and
        FailedPreconditionError for a committed snapshot.
        """
        with self.store.transaction(scope) as transaction:
            snapshot, *parents = transaction.chain(transaction.get(key).id)
        if snapshot.kind == Kind.COMMITTED:
            raise FailedPreconditionError(f"snapshot {key} is committed; prepare or view a snapshot on it")
        self.layers.check(parents)
        return self.directories.mounts(snapshot, _numbers(parents))

    def commit(self, scope: str, key: str, name: str, labels: Mapping[str, str], parent: str = "") -> None:
        """Make an active snapshot the committed snapshot `name`. Raises as `Transaction.commit`."""
        with self.store.transaction(scope) as transaction:
            snapshot = transaction.get(key)
        if snapshot.pending:
            raise FailedPreconditionError(f"snapshot {key} is still being prepared")
        size, inodes = 0, 0
        if snapshot.kind == Kind.ACTIVE:
            try:
                size, inodes = measure(self.directories.upper(snapshot.id), self._measured_within)
            except TimeoutError:
                size, inodes = _UNMEASURED, 0
        with self.store.transaction(scope) as transaction:
            transaction.commit(snapshot.id, name, _without_ours(labels), size, inodes, parent)

    # --- what there is -----------------------------------------------------------------------------

    def stat(self, scope: str, key: str) -> Snapshot:
        """Return what is known of a snapshot. Raises NotFoundError."""
        with self.store.transaction(scope) as transaction:
            return transaction.get(key)

    def find(self, scope: str, filters: Iterable[str] = ()) -> list[Snapshot]:
        """Return the snapshots that match one of containerd's filters. Raises InvalidArgumentError."""
        matches = parse_filters(filters)
        with self.store.transaction(scope) as transaction:
            snapshots = transaction.all()
        return [each for each in snapshots if matches(each)]

    def update(self, scope: str, name: str, labels: Mapping[str, str], paths: Sequence[str] = ()) -> Snapshot:
        """Change labels: all, or those that `paths` (`labels`, `labels.NAME`) name.

        An empty value removes the label. A remote snapshot keeps the labels by which it is found and mounted.
        Raises NotFoundError, and InvalidArgumentError for paths that cannot be changed.
        """
        with self.store.transaction(scope) as transaction:
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
            changed = _without_ours(changed)
            if is_remote(snapshot):
                changed |= self._kept(snapshot.labels)
            return transaction.set_labels(snapshot.id, {key: value for key, value in changed.items() if value})

    def usage(self, scope: str, key: str) -> tuple[int, int]:
        """Return the bytes on disk, and inodes, of a snapshot without its parents. Raises NotFoundError.

        For a remote snapshot these are the bytes of its layer that were fetched, and no inodes.
        """
        snapshot = self.stat(scope, key)
        if snapshot.kind == Kind.ACTIVE:
            return measure(self.directories.upper(snapshot.id))
        if is_remote(snapshot):
            size = self.layers.disk_usage(snapshot)
            return (snapshot.size, snapshot.inodes) if size is None else (size, 0)
        if snapshot.size == _UNMEASURED:
            usage = measure(self.directories.upper(snapshot.id))
            with self.store.transaction(scope) as transaction:
                transaction.set_usage(snapshot.id, *usage)
            return usage
        return snapshot.size, snapshot.inodes

    # --- letting go --------------------------------------------------------------------------------

    def remove(self, scope: str, key: str) -> None:
        """Remove a snapshot, even if the disk is full; `cleanup` removes its directory.

        Raises NotFoundError, and FailedPreconditionError for a snapshot with children.
        """
        self.store.change_without_room(lambda transaction: transaction.remove(transaction.get(key).id), scope)

    def cleanup(self) -> None:
        """Unmount and remove the directories of snapshots that are gone. What fails is tried again next time."""
        with self.store.transaction() as transaction:  # no directory is made meanwhile
            known = {str(each.id) for each in transaction.all()}
            surplus = [name for name in self.directories.names() if name not in known]
        for name in surplus:
            if not (name.isdigit() and self.layers.is_busy(int(name))):  # its Prepare removes it
                self._remove_directory(name)
        self.store.keep_reserve()

    def is_mounted_as(self, scope: str, target: str, labels: Mapping[str, str]) -> bool:
        """Return True if a Prepare would find the layer that the labels ask for mounted under this target.

        The parent is not looked at, so that it may have to be mounted once more all the same.
        """
        with self.store.transaction(scope) as transaction:
            found = [each for each in transaction.all() if each.labels.get(TARGET_LABEL) == target and is_remote(each)]
        return any(may_stand_in(each.labels, labels, self._formats) for each in found)

    # --- parts -------------------------------------------------------------------------------------

    def _create(self, scope: str, kind: Kind, key: str, parent: str, labels: Mapping[str, str]) -> list[Mount]:
        with self.store.transaction(scope) as transaction:
            parents = transaction.chain(transaction.get(parent).id) if parent else []
        self.layers.check(parents)
        with self.store.transaction(scope) as transaction:
            snapshot = transaction.create(kind, key, parent, labels)
            self.directories.create(snapshot)
        return self._finish(snapshot, checked=_numbers(parents))

    def _finish(self, snapshot: Snapshot, *, checked: Sequence[int] | None = None) -> list[Mount]:
        """Return the mounts of a new snapshot, now that everything else is done; remove it if this fails."""
        try:
            with self.store.transaction() as transaction:
                _, *parents = transaction.chain(snapshot.id)
            if checked != _numbers(parents):
                self.layers.check(parents)
            if parents:
                self.directories.take_owner(snapshot.id, parents[0].id)
        except (LazylayerError, OSError):
            self._abandon(snapshot)
            raise
        return self.directories.mounts(snapshot, _numbers(parents))

    def _look_for(
        self, transaction: Transaction, target: str, parent: str, labels: Mapping[str, str]
    ) -> tuple[bool, str]:
        """Return True if the wanted layer is mounted under the target, and the reason why another one is none."""
        mounted = [each for each in transaction.committed_with(TARGET_LABEL, target, parent) if is_remote(each)]
        for other in mounted:
            if not may_stand_in(other.labels, labels, self._formats):
                return False, (
                    f"snapshot {other.name} has the same chain ID, but is another layer, and its archive was not"
                    " checked; remove the image that it belongs to in order to mount this one"
                )
        return bool(mounted), ""

    def _mount_target(self, snapshot: Snapshot, target: str) -> bool:
        """Make the active snapshot a committed one with its layer mounted; return False if that fails."""
        try:
            self.layers.mount(snapshot.id, snapshot.labels)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the layer can be unpacked instead
            self._fall_back(snapshot, str(error) or repr(error))
            return False
        try:
            kept, reason = self._commit_target(snapshot, target)
        except BaseException:
            self._remove_directory(str(snapshot.id))
            raise
        if reason:
            try:
                self.layers.unmount(snapshot.id)
            except LazylayerError:
                self._abandon(snapshot)
                raise
            self._fall_back(snapshot, reason)
            return False
        if not kept:
            self._remove_directory(str(snapshot.id))
        log = logger.bind(key=snapshot.name, parent=snapshot.parent)
        log.bind(**{LOG_KEY: "true"}).debug("{key}: mounted as {target}", key=snapshot.name, target=target)
        return True

    def _commit_target(self, snapshot: Snapshot, target: str) -> tuple[bool, str]:
        """Commit the snapshot by its number: its key may be another's by now.

        Returns False, the active snapshot being removed, if another Prepare was faster; and a reason, the
        snapshot being left as it was, if that Prepare was for another layer. Raises NotFoundError.
        """
        with self.store.transaction(snapshot.scope) as transaction:
            transaction.at(snapshot.id)
            there, reason = self._look_for(transaction, target, snapshot.parent, snapshot.labels)
            if there:
                transaction.remove(snapshot.id)
            elif not reason:
                self._commit(transaction, snapshot.id, target, snapshot.labels)
        return not there, reason

    @staticmethod
    def _commit(transaction: Transaction, number: int, target: str, labels: Mapping[str, str]) -> None:
        """Commit a snapshot whose layer is mounted, under a name that is free."""
        name = f"{target}@{number}" if transaction.exists(target) else target
        transaction.commit(number, name, {**labels, REMOTE_LABEL: "remote snapshot"}, 0, 0)

    def _fall_back(self, snapshot: Snapshot, reason: str) -> None:
        _log_fallback(snapshot, reason)
        try:
            with self.store.transaction() as transaction:
                transaction.set_labels(snapshot.id, {**snapshot.labels, FALLBACK_LABEL: reason[:_REASON_LENGTH]})
        except NotFoundError:
            self._remove_directory(str(snapshot.id))
            raise

    def _kept(self, labels: Mapping[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in labels.items() if name in _OURS or name == TARGET_LABEL}
        return {**mount_labels(labels, self._formats.annotations), **kept}

    def _abandon(self, snapshot: Snapshot) -> None:
        with suppress(NotFoundError):  # its client may have removed it
            self.store.change_without_room(lambda transaction: transaction.remove(snapshot.id))
        self._remove_directory(str(snapshot.id))

    def _remove_directory(self, name: str) -> None:
        try:
            if name.isdigit():
                self.layers.unmount(int(name))
            self.directories.remove(name)
        except (LazylayerError, OSError) as error:
            logger.warning("the directory {name} is not removed yet: {error}", name=name, error=error)


def _without_ours(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels without those that only we may set."""
    return {key: value for key, value in labels.items() if key not in _OURS}


def _log_fallback(snapshot: Snapshot, reason: str) -> None:
    log = logger.bind(key=snapshot.name, parent=snapshot.parent, **{LOG_KEY: "false"})
    log.warning("{key}: not mounted lazily, containerd will unpack it: {reason}", key=snapshot.name, reason=reason)


def _there_already(target: str) -> AlreadyExistsError:
    return AlreadyExistsError(f"target snapshot {target!r}: already exists")


def _numbers(snapshots: Sequence[Snapshot]) -> list[int]:
    return [each.id for each in snapshots]
