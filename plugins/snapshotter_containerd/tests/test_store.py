"""Transactions happen wholly or not at all, also when the process is killed in the middle."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lazylayer_snapshotter_containerd.problems import FailedPreconditionError, NotFoundError
from lazylayer_snapshotter_containerd.store import Kind, Store

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
        transaction.commit(f"a{number}", f"c{number}", {}, number, 1)
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
        transaction.get("nobody")
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
            transaction.remove("a")
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
