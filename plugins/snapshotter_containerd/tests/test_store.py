"""Transactions happen wholly or not at all, also when the process is killed in the middle."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lazylayer.errors import NotMountedError
from lazylayer_snapshotter_containerd.problems import FailedPreconditionError, NoRoomError, NotFoundError
from lazylayer_snapshotter_containerd.snapshotter import Snapshotter
from lazylayer_snapshotter_containerd.store import Kind, Store

from .conftest import FORMATS

WRITER = """
import sys
from pathlib import Path
from lazylayer_snapshotter_containerd.store import Kind, Store
store = Store(Path(sys.argv[1]))
parent = ""
for number in range(1_000_000):
    with store.transaction() as transaction:
        transaction.create(Kind.ACTIVE, f"a{number}", parent, {"number": str(number)})
    with store.transaction() as transaction:
        transaction.commit(transaction.get(f"a{number}").id, f"c{number}", {}, number, 1)
        if number:
            transaction.create(Kind.VIEW, f"v{number}", f"c{number - 1}", {})
    parent = f"c{number}"
    print(number, flush=True)
"""


@pytest.mark.parametrize("wanted", [1, 7, 30])
def test_what_was_answered_is_there_after_a_kill(tmp_path: Path, wanted: int) -> None:
    file = tmp_path / "metadata"
    with subprocess.Popen([sys.executable, "-c", WRITER, file], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(wanted)]
        writer.kill()
        said += writer.stdout.readlines()
    last = max(int(line) for line in said if line.endswith("\n"))
    store = Store(file)
    with store.transaction() as transaction:
        snapshots = {each.name: each for each in transaction.all()}
    store.close()
    for number in range(last + 1):
        assert snapshots[f"c{number}"].size == number
        assert f"a{number}" not in snapshots
        assert (f"v{number}" in snapshots) == (number > 0)
    # At most what one transaction makes is there beyond that.
    assert len(snapshots) <= 2 * (last + 1) + 2


def test_a_block_that_raises_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "metadata")
    with pytest.raises(NotFoundError), store.transaction() as transaction:
        transaction.create(Kind.ACTIVE, "a", "", {})
        transaction.get("unknown")
    with store.transaction() as transaction:
        assert transaction.all() == []
    store.close()
    store.close()


def test_numbers_are_never_used_again(tmp_path: Path) -> None:
    numbers = []
    for _ in range(3):
        store = Store(tmp_path / "metadata")
        with store.transaction() as transaction:
            numbers.append(transaction.create(Kind.ACTIVE, "a", "", {}).id)
        with store.transaction() as transaction:
            transaction.remove(transaction.get("a").id)
        store.close()
    assert numbers == [1, 2, 3]


def test_threads_take_turns(tmp_path: Path) -> None:
    store = Store(tmp_path / "metadata")

    def work(name: str) -> None:
        for number in range(20):
            with store.transaction() as transaction:
                transaction.create(Kind.ACTIVE, f"{name}{number}", "", {})

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.transaction() as transaction:
        assert len({each.id for each in transaction.all()}) == 80
    store.close()


def test_a_database_of_the_future_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "metadata") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(FailedPreconditionError, match="newer lazylayer"):
        Store(tmp_path / "metadata")


VERSION_1 = """
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
INSERT INTO snapshots VALUES (3, 'low', NULL, 3, 1, 2, '{"a": "b"}', 7, 8, 0);
INSERT INTO snapshots VALUES (5, 'high', 3, 2, 1, 2, '{}', 0, 0, 1);
INSERT INTO snapshots VALUES (9, 'gone', NULL, 2, 1, 2, '{}', 0, 0, 0);
DELETE FROM snapshots WHERE id = 9;
PRAGMA user_version = 1;
"""


def test_a_database_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "metadata") as connection:
        connection.executescript(VERSION_1)
    connection.close()
    for _ in range(2):
        store = Store(tmp_path / "metadata")
        with store.transaction() as transaction:
            low, high = transaction.all()
            assert (low.id, low.name, low.labels, low.size, low.inodes) == (3, "low", {"a": "b"}, 7, 8)
            assert (high.parent, high.kind, high.pending, high.scope) == ("low", Kind.ACTIVE, True, "")
            assert transaction.chain(5) == [high, low]
            assert transaction.children(3) == 1
        store.close()
    store = Store(tmp_path / "metadata")
    with store.transaction("x") as transaction:
        assert transaction.create(Kind.ACTIVE, "new", "low", {}).id == 10, "9 was used"
        assert [each.name for each in transaction.all()] == ["low", "new"]
    store.close()


# --- a full disk ---------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it mounts a tmpfs")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def fill(file: Path) -> None:
    """Write a file until nothing more fits, not a byte."""
    for size in (64 * 1024, 4096, 1):
        with file.open("ab", buffering=0) as out:
            try:
                while True:
                    out.write(bytes(size))
            except OSError:
                continue


class Filesystem:
    """A filesystem of layers in which none is mounted."""

    def mount(self, mountpoint: str, labels: Mapping[str, str], *, check: bool = True) -> None:
        raise NotImplementedError

    def check(self, mountpoint: str, *, wait: bool = True) -> None:
        raise NotMountedError(mountpoint)

    def unmount(self, mountpoint: str, *, force: bool = False) -> None:
        raise NotMountedError(mountpoint)

    def remove_left(self, mountpoint: str) -> None:
        raise NotMountedError(mountpoint)

    def disk_usage(self, mountpoint: str) -> int:
        raise NotMountedError(mountpoint)

    def close(self, *, leave: bool = False) -> None:
        pass


@pytest.mark.parametrize("restarted", [False, True])
def test_snapshots_are_removed_from_a_full_disk(disk: Path, restarted: bool) -> None:
    snapshotter = Snapshotter(disk, Filesystem(), FORMATS)
    for number in range(40):
        snapshotter.prepare("s", f"key {number}", "", {"label": "x" * 500})
    file = Path(snapshotter.directories.upper(1)) / "file"
    fill(file)
    if restarted:
        snapshotter.close()
        (disk / "metadata.sqlite-shm").unlink(missing_ok=True)  # SQLite makes it again from its log
        fill(file)
        snapshotter = Snapshotter(disk, Filesystem(), FORMATS)
    else:
        with pytest.raises((NoRoomError, OSError)):
            for number in range(2000):
                snapshotter.prepare("s", f"other {number}", "", {"label": "x" * 2000})
        fill(file)
    for number in range(1, 40):
        snapshotter.remove("s", f"key {number}")
    snapshotter.remove("s", "key 0")
    snapshotter.cleanup()
    assert not file.exists()
    assert (disk / "reserve").stat().st_blocks * 512 >= 1024 * 1024, "room is kept for the next time"
    snapshotter.prepare("s", "new", "", {})
    snapshotter.close()


def test_a_change_that_found_no_room_leaves_the_database_usable(disk: Path) -> None:
    store = Store(disk / "metadata")
    fill(disk / "file")
    with pytest.raises(NoRoomError), store.transaction("s") as transaction:
        for number in range(1000):
            transaction.create(Kind.ACTIVE, f"a{number}", "", {"x": "y" * 4000})
    with store.transaction("s") as transaction:
        assert transaction.all() == []
    (disk / "file").unlink()
    with store.transaction("s") as transaction:
        transaction.create(Kind.ACTIVE, "a", "", {})
    store.close()
