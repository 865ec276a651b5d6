"""What is known of each snapshot: an SQLite database, changed in transactions.

A snapshot is there or not, whatever is killed when: every change is one transaction that is on disk
before the caller hears of it. A snapshot has one number (`id`) from its creation to its removal, which
names its directory and is never used again; committing it changes its name and kind.

The lock is `Store._lock`: one transaction at a time, none of which waits for the network. Safe to use
from any thread.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

import msgspec

from lazylayer_snapshotter_containerd.problems import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
)

__all__ = ["Kind", "Snapshot", "Store", "Transaction"]

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    parent INTEGER REFERENCES snapshots (id),
    kind INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    labels TEXT NOT NULL,
    size INTEGER NOT NULL DEFAULT 0,
    inodes INTEGER NOT NULL DEFAULT 0,
    pending INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX snapshots_parent ON snapshots (parent);
"""
_COLUMNS = "s.id, s.name, COALESCE(p.name, ''), s.kind, s.created, s.updated, s.labels, s.size, s.inodes, s.pending"
_SELECT = f"SELECT {_COLUMNS} FROM snapshots s LEFT JOIN snapshots p ON p.id = s.parent"  # noqa: S608 - constants


class Kind(IntEnum):
    """The kinds of snapshots, numbered as in containerd's API."""

    VIEW = 1
    ACTIVE = 2
    COMMITTED = 3


class Snapshot(msgspec.Struct, frozen=True):
    """One snapshot. Times are nanoseconds since the epoch; `size` is in bytes.

    `pending` is set while its layer is being mounted: nobody was told of it yet.
    """

    id: int
    name: str
    parent: str
    kind: Kind
    created: int
    updated: int
    labels: dict[str, str]
    size: int
    inodes: int
    pending: bool


class Store:
    """The database in `file`, made if it is not there."""

    def __init__(self, file: Path) -> None:
        self._lock = threading.Lock()
        # The file is made root-only by whoever made its directory root-only.
        self._connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=10)
        try:
            self._prepare(file)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, file: Path) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        with self._exclusively():
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version > _SCHEMA_VERSION:
                raise FailedPreconditionError(f"{file} was written by a newer lazylayer; use that one")
            if version == 0:
                for statement in _SCHEMA.split(";")[:-1]:
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")

    def close(self) -> None:
        """Closes the database. Idempotent."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One transaction: all that is done with it happens when the block ends, or nothing if it raises."""
        with self._exclusively():
            yield Transaction(self._connection)

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


class Transaction:
    """Reads and changes snapshots. Only inside its `with` block, and only from one thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> Snapshot:
        """The snapshot of this name. Raises NotFoundError."""
        for snapshot in self._select("WHERE s.name = ?", name):
            return snapshot
        raise NotFoundError(f"snapshot {name} does not exist")

    def all(self) -> list[Snapshot]:
        """Every snapshot, oldest first."""
        return list(self._select("ORDER BY s.id"))

    def chain(self, name: str) -> list[Snapshot]:
        """The snapshot of this name, its parent, and so on to the lowest. Raises NotFoundError."""
        snapshots = [self.get(name)]
        while snapshots[-1].parent:
            snapshots.append(self.get(snapshots[-1].parent))
        return snapshots

    def children(self, snapshot: Snapshot) -> int:
        """How many snapshots have this one as their parent."""
        query = "SELECT count(*) FROM snapshots WHERE parent = ?"
        count: int = self._connection.execute(query, (snapshot.id,)).fetchone()[0]
        return count

    def committed_with(self, label: str, value: str, parent: str) -> Snapshot | None:
        """A committed snapshot on this parent that has this value for a label."""
        parent_id = self.get(parent).id if parent else None
        for snapshot in self._select("WHERE s.kind = ? AND s.parent IS ?", Kind.COMMITTED, parent_id):
            if snapshot.labels.get(label) == value:
                return snapshot
        return None

    def create(
        self, kind: Kind, name: str, parent: str, labels: Mapping[str, str], *, pending: bool = False
    ) -> Snapshot:
        """A new view or active snapshot.

        Raises AlreadyExistsError, NotFoundError for the parent, and InvalidArgumentError for an
        empty name and for a parent that is not committed.
        """
        if not name:
            raise InvalidArgumentError("a snapshot needs a key")
        parent_id = self._committed_parent(parent) if parent else None
        now = time.time_ns()
        values = (name, parent_id, kind, now, now, json.dumps(dict(labels)), int(pending))
        insert = "INSERT INTO snapshots (name, parent, kind, created, updated, labels, pending) VALUES (?,?,?,?,?,?,?)"
        self._execute(insert, values, name)
        return self.get(name)

    def commit(
        self, key: str, name: str, labels: Mapping[str, str], size: int, inodes: int, parent: str = ""
    ) -> Snapshot:
        """Makes the active snapshot `key` the committed snapshot `name`.

        Its labels are replaced, and it gets new times. A snapshot without parent may get one now.
        Raises AlreadyExistsError, NotFoundError, FailedPreconditionError for a snapshot that is not
        active, and InvalidArgumentError for another parent than it has.
        """
        snapshot = self.get(key)
        if snapshot.kind != Kind.ACTIVE:
            raise FailedPreconditionError(f"snapshot {key} is not active")
        if not name:
            raise InvalidArgumentError(f"snapshot {key} cannot be committed without a name")
        if parent and snapshot.parent and parent != snapshot.parent:
            raise InvalidArgumentError(f"snapshot {key} has the parent {snapshot.parent}; it cannot become {parent}")
        parent_id = self._committed_parent(parent or snapshot.parent) if parent or snapshot.parent else None
        now = time.time_ns()
        values = (name, parent_id, Kind.COMMITTED, now, now, json.dumps(dict(labels)), size, inodes, snapshot.id)
        update = (
            "UPDATE snapshots SET name = ?, parent = ?, kind = ?, created = ?, updated = ?, labels = ?, size = ?,"
            " inodes = ?, pending = 0 WHERE id = ?"
        )
        self._execute(update, values, name)
        return self.get(name)

    def set_labels(self, name: str, labels: Mapping[str, str]) -> Snapshot:
        """Replaces the labels. Raises NotFoundError."""
        snapshot = self.get(name)
        values = (json.dumps(dict(labels)), time.time_ns(), snapshot.id)
        self._connection.execute("UPDATE snapshots SET labels = ?, updated = ?, pending = 0 WHERE id = ?", values)
        return self.get(name)

    def remove(self, name: str) -> Snapshot:
        """Forgets a snapshot. Raises NotFoundError, and FailedPreconditionError if it has children."""
        snapshot = self.get(name)
        if self.children(snapshot):
            raise FailedPreconditionError(f"cannot remove snapshot {name}: it has children")
        self._connection.execute("DELETE FROM snapshots WHERE id = ?", (snapshot.id,))
        return snapshot

    def _committed_parent(self, name: str) -> int:
        parent = self.get(name)
        if parent.kind != Kind.COMMITTED:
            raise InvalidArgumentError(f"the parent {name} is not a committed snapshot")
        return parent.id

    def _execute(self, statement: str, values: tuple[object, ...], name: str) -> None:
        try:
            self._connection.execute(statement, values)
        except sqlite3.IntegrityError:
            raise AlreadyExistsError(f"snapshot {name} already exists") from None

    def _select(self, rest: str, *values: object) -> Iterator[Snapshot]:
        for row in self._connection.execute(f"{_SELECT} {rest}", values).fetchall():
            number, name, parent, kind, created, updated, labels, size, inodes, pending = row
            yield Snapshot(
                number, name, parent, Kind(kind), created, updated, json.loads(labels), size, inodes, bool(pending)
            )
