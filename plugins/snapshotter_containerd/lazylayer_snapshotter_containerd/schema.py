"""Make the tables of the database of snapshots, and bring those of earlier versions up to date."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lazylayer_snapshotter_containerd.problems import FailedPreconditionError

__all__ = ["prepare_schema"]

_VERSION = 2
_TABLE = """
CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    parent INTEGER REFERENCES snapshots (id),
    kind INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    labels TEXT NOT NULL,
    size INTEGER NOT NULL DEFAULT 0,
    inodes INTEGER NOT NULL DEFAULT 0,
    pending INTEGER NOT NULL DEFAULT 0,
    UNIQUE (scope, name)
);
CREATE INDEX snapshots_parent ON snapshots (parent);
"""
_FROM_VERSION_1 = f"""
DROP INDEX snapshots_parent;
ALTER TABLE snapshots RENAME TO old;
{_TABLE}
INSERT INTO snapshots SELECT id, '', name, parent, kind, created, updated, labels, size, inodes, pending FROM old;
DELETE FROM sqlite_sequence WHERE name = 'snapshots';
UPDATE sqlite_sequence SET name = 'snapshots' WHERE name = 'old';
DROP TABLE old;
"""  # noqa: S608 - constants. Numbers are never used again, so the sequence of the old table goes on.


def prepare_schema(connection: sqlite3.Connection, file: Path) -> None:
    """Make or update the tables, inside a transaction and without foreign keys.

    Raises FailedPreconditionError for a database of a newer version.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise FailedPreconditionError(f"{file} was written by a newer lazylayer; use that one")
    if version == _VERSION:
        return
    for statement in (_FROM_VERSION_1 if version else _TABLE).split(";")[:-1]:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {_VERSION}")
