"""Keep what is known of each snapshot in an SQLite database, changed in transactions.

A snapshot exists or does not, whatever is killed when: every change is one transaction that is on disk before the
caller hears of it. A snapshot has one number (`id`) from its creation to its removal, which names its directory and
is never used again. Its name changes when it is committed, and another snapshot may get it after a removal, so
work that takes time goes on by number.

Names belong to a scope: the name that containerd has for this snapshotter. One socket may serve two such names,
and the garbage collection of one must not see the snapshots of the other.

Removing needs no room on the disk: a file kept in reserve gives way to it.

The lock is `Store._lock`: one transaction at a time, none of which waits for the network. Safe to use
from any thread.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

import msgspec

from lazylayer_snapshotter_containerd.problems import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NoRoomError,
    NotFoundError,
)
from lazylayer_snapshotter_containerd.schema import prepare_schema

__all__ = ["Kind", "Snapshot", "Store", "Transaction"]

_Result = TypeVar("_Result")

_COLUMNS = (
    "s.id, s.scope, s.name, COALESCE(p.name, ''), s.kind, s.created, s.updated, s.labels, s.size, s.inodes, s.pending"
)
_SELECT = f"SELECT {_COLUMNS} FROM snapshots s LEFT JOIN snapshots p ON p.id = s.parent"  # noqa: S608 - constants
_RESERVE = 1024 * 1024
"""Bytes kept for removals: some hundred of them, and a database that is opened."""
_NO_ROOM = frozenset(
    (sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
)


class Kind(IntEnum):
    """The kinds of snapshots, numbered as in containerd's API."""

    VIEW = 1
    ACTIVE = 2
    COMMITTED = 3


class Snapshot(msgspec.Struct, frozen=True):
    """One snapshot. Times are nanoseconds since the epoch; `size` is in bytes.

    `pending` is set while its layer is being mounted: no client was told of it yet.
    """

    id: int
    scope: str
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
    """The database in `file`, made if it does not exist."""

    def __init__(self, file: Path) -> None:
        self._lock = threading.Lock()
        self._reserve = file.with_name("reserve")
        try:
            self._connection = _open(file)
        except NoRoomError:
            self._reserve.unlink(missing_ok=True)
            self._connection = _open(file)
        self.keep_reserve()

    def close(self) -> None:
        """Close the database. Idempotent."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self, scope: str | None = None) -> Iterator[Transaction]:
        """Make changes that all happen when the block ends, or not at all if it raises.

        :param scope: whose names are meant; None for work by number, and to see every snapshot.

        Raises NoRoomError when the disk is full.
        """
        with self._lock, _exclusively(self._connection):
            yield Transaction(self._connection, scope)

    def change_without_room(self, change: Callable[[Transaction], _Result], scope: str | None = None) -> _Result:
        """Make a change that frees room, even on a full disk: it is tried again on the room kept in reserve."""
        try:
            with self.transaction(scope) as transaction:
                return change(transaction)
        except NoRoomError:
            self._reserve.unlink(missing_ok=True)
            with self.transaction(scope) as transaction:
                return change(transaction)

    def keep_reserve(self) -> None:
        """Keep room for removals, if there is any."""
        with suppress(OSError):
            if self._reserve.exists():
                return
            descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, _RESERVE)
            except OSError:
                self._reserve.unlink()
            finally:
                os.close(descriptor)


class Transaction:
    """Reads and changes of snapshots. Only inside its `with` block, and only from one thread."""

    def __init__(self, connection: sqlite3.Connection, scope: str | None) -> None:
        self._connection = connection
        self._scope = scope

    def get(self, name: str) -> Snapshot:
        """Return the snapshot of this name. Raises NotFoundError."""
        for snapshot in self._select(
            "WHERE s.name = ? AND s.scope IN (?, '') ORDER BY s.scope = ''", name, self._scope
        ):
            return self._adopt(snapshot)
        raise NotFoundError(f"snapshot {name} does not exist")

    def at(self, number: int) -> Snapshot:
        """Return the snapshot of this number. Raises NotFoundError."""
        for snapshot in self._select("WHERE s.id = ?", number):
            return snapshot
        raise NotFoundError(f"snapshot {number} does not exist any more")

    def all(self) -> list[Snapshot]:
        """Return every snapshot of the scope, oldest first."""
        if self._scope is None:
            return list(self._select("ORDER BY s.id"))
        return list(self._select("WHERE s.scope = ? ORDER BY s.id", self._scope))

    def chain(self, number: int) -> list[Snapshot]:
        """Return the snapshot of this number, its parent, and so on to the lowest. Raises NotFoundError."""
        snapshots = [self.at(number)]
        while (above := snapshots[-1]).parent:
            snapshots.extend(self._select("WHERE s.id = (SELECT parent FROM snapshots WHERE id = ?)", above.id))
        return snapshots

    def children(self, number: int) -> int:
        """Return the number of snapshots that have this one as their parent."""
        query = "SELECT count(*) FROM snapshots WHERE parent = ?"
        count: int = self._connection.execute(query, (number,)).fetchone()[0]
        return count

    def committed_with(self, label: str, value: str, parent: str) -> list[Snapshot]:
        """Return the committed snapshots on this parent that have this value for a label, oldest first."""
        parent_id = self.get(parent).id if parent else None
        where = "WHERE s.kind = ? AND s.parent IS ? AND s.scope IN (?, '') ORDER BY s.id"
        found = self._select(where, Kind.COMMITTED, parent_id, self._scope)
        return [self._adopt(each) for each in found if each.labels.get(label) == value]

    def create(
        self, kind: Kind, name: str, parent: str, labels: Mapping[str, str], *, pending: bool = False
    ) -> Snapshot:
        """Create a view or an active snapshot.

        Raises AlreadyExistsError, NotFoundError for the parent, and InvalidArgumentError for an
        empty name and for a parent that is not committed.
        """
        if not name:
            raise InvalidArgumentError("a snapshot needs a key")
        self._must_be_free(name)
        parent_id = self._committed_parent(parent) if parent else None
        now = time.time_ns()
        values = (self._scope or "", name, parent_id, kind, now, now, json.dumps(dict(labels)), int(pending))
        insert = (
            "INSERT INTO snapshots (scope, name, parent, kind, created, updated, labels, pending)"
            " VALUES (?,?,?,?,?,?,?,?)"
        )
        number = self._connection.execute(insert, values).lastrowid
        assert number is not None, "a row was inserted"
        return self.at(number)

    def take_over(self, number: int, parent: str) -> Snapshot:
        """Move a snapshot without parent into the scope, on the committed snapshot `parent`, if there is to be one.

        Raises NotFoundError, and InvalidArgumentError for a parent that is not committed.
        """
        snapshot = self.at(number)
        parent_id = self._committed_parent(parent) if parent else None
        values = (self._scope or "", parent_id, snapshot.id)
        self._connection.execute("UPDATE snapshots SET scope = ?, parent = ? WHERE id = ?", values)
        return self.at(number)

    def commit(
        self, number: int, name: str, labels: Mapping[str, str], size: int, inodes: int, parent: str = ""
    ) -> Snapshot:
        """Make an active snapshot the committed snapshot `name`.

        Its labels are replaced, and it gets new times. A snapshot without parent may get one now.
        Raises AlreadyExistsError, NotFoundError, FailedPreconditionError for a snapshot that is not
        active, and InvalidArgumentError for another parent than it has.
        """
        snapshot = self.at(number)
        if snapshot.kind != Kind.ACTIVE:
            raise FailedPreconditionError(f"snapshot {snapshot.name} is not active")
        if not name:
            raise InvalidArgumentError(f"snapshot {snapshot.name} cannot be committed without a name")
        if parent and snapshot.parent and parent != snapshot.parent:
            raise InvalidArgumentError(
                f"snapshot {snapshot.name} has the parent {snapshot.parent}; it cannot become {parent}"
            )
        if name != snapshot.name:
            self._must_be_free(name)
        if parent and not snapshot.parent:
            parent_id = self._committed_parent(parent)
            self._connection.execute("UPDATE snapshots SET parent = ? WHERE id = ?", (parent_id, number))
        now = time.time_ns()
        values = (name, Kind.COMMITTED, now, now, json.dumps(dict(labels)), size, inodes, number)
        update = (
            "UPDATE snapshots SET name = ?, kind = ?, created = ?, updated = ?, labels = ?, size = ?, inodes = ?,"
            " pending = 0 WHERE id = ?"
        )
        self._connection.execute(update, values)
        return self.at(number)

    def set_labels(self, number: int, labels: Mapping[str, str]) -> Snapshot:
        """Replace the labels of a snapshot, which is pending no more. Raises NotFoundError."""
        values = (json.dumps(dict(labels)), time.time_ns(), self.at(number).id)
        self._connection.execute("UPDATE snapshots SET labels = ?, updated = ?, pending = 0 WHERE id = ?", values)
        return self.at(number)

    def set_usage(self, number: int, size: int, inodes: int) -> None:
        """Record what a committed snapshot takes on disk."""
        self._connection.execute("UPDATE snapshots SET size = ?, inodes = ? WHERE id = ?", (size, inodes, number))

    def remove(self, number: int) -> Snapshot:
        """Remove a snapshot. Raises NotFoundError, and FailedPreconditionError if it has children."""
        snapshot = self.at(number)
        if self.children(number):
            raise FailedPreconditionError(f"cannot remove snapshot {snapshot.name}: it has children")
        self._connection.execute("DELETE FROM snapshots WHERE id = ?", (number,))
        return snapshot

    def exists(self, name: str) -> bool:
        """Return True if there is a snapshot of this name."""
        try:
            self.get(name)
        except NotFoundError:
            return False
        return True

    def _must_be_free(self, name: str) -> None:
        if self.exists(name):
            raise AlreadyExistsError(f"snapshot {name} already exists")

    def _adopt(self, snapshot: Snapshot) -> Snapshot:
        """Give a snapshot that was made before there were scopes to the first one that names it."""
        if snapshot.scope or not self._scope:
            return snapshot
        self._connection.execute("UPDATE snapshots SET scope = ? WHERE id = ?", (self._scope, snapshot.id))
        return msgspec.structs.replace(snapshot, scope=self._scope)

    def _committed_parent(self, name: str) -> int:
        parent = self.get(name)
        if parent.kind != Kind.COMMITTED:
            raise InvalidArgumentError(f"the parent {name} is not a committed snapshot")
        return parent.id

    def _select(self, rest: str, *values: object) -> Iterator[Snapshot]:
        for row in self._connection.execute(f"{_SELECT} {rest}", values).fetchall():
            number, scope, name, parent, kind, created, updated, labels, size, inodes, pending = row
            yield Snapshot(
                number,
                scope,
                name,
                parent,
                Kind(kind),
                created,
                updated,
                json.loads(labels),
                size,
                inodes,
                bool(pending),
            )


def _open(file: Path) -> sqlite3.Connection:
    try:
        # The directory is for root alone, and so is what is in it.
        connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=10)
    except sqlite3.OperationalError as error:
        raise _explain(error, file) from error
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        with _exclusively(connection):
            prepare_schema(connection, file)
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.OperationalError as error:
        connection.close()
        raise _explain(error, file) from error
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _exclusively(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        _roll_back(connection)
        raise _explain(error, Path("the database of snapshots")) from error
    except BaseException:
        _roll_back(connection)
        raise


def _roll_back(connection: sqlite3.Connection) -> None:
    """End a transaction, unless SQLite did so itself, as it does on a full disk."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _explain(error: sqlite3.OperationalError, file: Path) -> Exception:
    if getattr(error, "sqlite_errorcode", 0) in _NO_ROOM:
        return NoRoomError(f"cannot write {file}: {error}; free some room on its disk")
    return error
