"""Mounts that outlive the daemon that made them, and are taken up by the next."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lazylayer.linux import mounttable
from lazylayer_frontend_erofs import Options
from lazylayer_frontend_erofs.keeping import KeeperProcess, open_keeping
from lazylayer_frontend_erofs.mount import mount_tree
from lazylayer_frontend_erofs.probe import what_is_missing
from lazylayer_testing.frontend.facts import differences
from lazylayer_testing.frontend.trees import access_tree, odd_tree

from .keepers import WAIT, Keepers, leave

DAEMON = """
import sys, threading
from pathlib import Path
from lazylayer.api.mounting import MountOptions
from lazylayer.api.settings import Settings
from lazylayer_testing.frontend import trees as frontend_tree
from lazylayer_frontend_erofs import FrontendErofs
from lazylayer_frontend_erofs.options import Options

mountpoint, run, tree, hold = sys.argv[1:]
tree = frontend_tree.odd_tree() if tree == "odd" else frontend_tree.access_tree(b"x")
tree.identity = "sample"
plugin = FrontendErofs()
plugin.lazylayer_configure(Settings(root=run, run=run), Options())
mounted = plugin.lazylayer_mount_tree(tree, mountpoint, MountOptions())
if hold == "hold":
    tree.gate.clear()
    teller = threading.Thread(target=lambda: tree.waiting.wait() and print("held", flush=True))
    teller.start()
print("ready", flush=True)
command = sys.stdin.readline().strip()
if command == "leave":
    assert mounted.leave()
else:
    mounted.unmount(force=True)
"""


class Daemons:
    """Processes that mount at one place, one after the other."""

    def __init__(self, directory: Path) -> None:
        self.run = directory / "run"
        self.mountpoint = directory / "mount"
        self.mountpoint.mkdir(parents=True)
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, tree: str = "odd", hold: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", DAEMON, str(self.mountpoint), str(self.run), tree, hold],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def end(self, process: subprocess.Popen[str], command: str = "") -> None:
        process.communicate(command + "\n", timeout=WAIT)
        assert process.returncode == 0

    def kill(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.communicate()

    def keepers(self) -> Keepers:
        return Keepers(self.run / "frontend_erofs")

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                self.kill(process)
        if mounttable.mount_at(str(self.mountpoint)) is not None:
            # By umount(8), that stands in for somebody who cleans up.
            subprocess.run(["umount", "-l", self.mountpoint], check=True)
        self.keepers().close()


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    if missing := what_is_missing():
        pytest.skip(missing)
    daemons = Daemons(tmp_path)
    yield daemons
    daemons.close()


def facts(daemons: Daemons) -> list[str]:
    return differences(odd_tree(), str(daemons.mountpoint))


@pytest.mark.fuse
def test_killed_daemon_is_followed_by_the_next(daemons: Daemons) -> None:
    first = daemons.start()
    device = os.stat(daemons.mountpoint).st_dev
    daemons.kill(first)
    second = daemons.start()
    assert os.stat(daemons.mountpoint).st_dev == device
    assert facts(daemons) == []
    daemons.end(second)
    assert mounttable.mount_at(str(daemons.mountpoint)) is None
    assert [path.name for path in (daemons.run / "frontend_erofs").glob("*.json")] == []


@pytest.mark.fuse
@pytest.mark.parametrize("end", ["kill", "leave"])
def test_reads_under_way_are_answered_by_the_next(daemons: Daemons, end: str) -> None:
    first = daemons.start(hold="hold")
    assert first.stdout is not None
    files = [daemons.mountpoint / "sizes" / name for name in ("1", "4097", "1000000", "large")]
    with ThreadPoolExecutor(4) as threads:
        reading = [threads.submit(file.read_bytes) for file in files]
        assert first.stdout.readline() == "held\n"
        if end == "kill":
            daemons.kill(first)
        else:
            daemons.end(first, "leave")
        # Some reads were taken by the first daemon, others may not even have been asked for.
        second = daemons.start()
        tree = odd_tree()
        for file, read in zip(files, reading, strict=True):
            entry = tree.tree.lookup(b"sizes/" + file.name.encode())
            assert entry is not None
            assert read.result(WAIT) == tree.content(entry, 0, entry.size)
    daemons.end(second)


@pytest.mark.fuse
def test_no_reader_notices_daemons_that_are_killed(daemons: Daemons) -> None:
    tree = odd_tree()
    entry = tree.tree.lookup(b"sizes/large")
    assert entry is not None
    expected = hashlib.sha256(tree.content(entry, 0, entry.size)).digest()
    stop = threading.Event()

    def read() -> int:
        rounds = 0
        while not stop.is_set():
            with (daemons.mountpoint / "sizes" / "large").open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                assert hashlib.file_digest(file, "sha256").digest() == expected
            rounds += 1
        return rounds

    daemon = daemons.start()
    with ThreadPoolExecutor(4) as threads:
        readers = [threads.submit(read) for _ in range(4)]
        try:
            for _ in range(5):
                daemons.kill(daemon)
                daemon = daemons.start()
        finally:
            stop.set()
        assert all(reader.result(WAIT) > 0 for reader in readers)
    daemons.end(daemon)


@pytest.mark.fuse
def test_a_running_daemon_hands_over_to_a_new_one(daemons: Daemons) -> None:
    first = daemons.start()
    second = daemons.start()
    daemons.end(first, "leave")
    assert facts(daemons) == []
    daemons.end(second)
    assert mounttable.mount_at(str(daemons.mountpoint)) is None


@pytest.mark.fuse
def test_without_daemon_and_keeper_readers_get_errors(daemons: Daemons) -> None:
    first = daemons.start(hold="hold")
    assert first.stdout is not None
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit((daemons.mountpoint / "sizes" / "large").read_bytes)
        assert first.stdout.readline() == "held\n"
        # Stopped first, lest it replace the keeper.
        os.kill(first.pid, signal.SIGSTOP)
        daemons.keepers().kill()
        daemons.kill(first)
        assert isinstance(reading.exception(WAIT), OSError)
    with pytest.raises(OSError):
        (daemons.mountpoint / "sizes" / "1").read_bytes()


@pytest.mark.fuse
def test_another_tree_is_mounted_anew(daemons: Daemons) -> None:
    daemons.kill(daemons.start())
    second = daemons.start(tree="access")
    assert differences(access_tree(b"x"), str(daemons.mountpoint)) == []
    daemons.end(second)
    assert mounttable.mount_at(str(daemons.mountpoint)) is None


@pytest.mark.fuse
def test_a_mount_that_was_removed_meanwhile_is_made_anew(daemons: Daemons) -> None:
    daemons.kill(daemons.start())
    subprocess.run(["umount", daemons.mountpoint], check=True)
    second = daemons.start()
    assert facts(daemons) == []
    daemons.end(second)


@pytest.mark.fuse
def test_unmounting_by_hand_ends_keeping(daemons: Daemons) -> None:
    if missing := what_is_missing():
        pytest.skip(missing)
    keeping = open_keeping("process", str(daemons.run), WAIT)
    assert keeping is not None
    mounted = mount_tree(access_tree(b""), str(daemons.mountpoint), Options(), "", keeping)
    (note,) = (daemons.run / "frontend_erofs").glob("*.json")
    assert json.loads(note.read_text())["mountpoint"] == str(daemons.mountpoint)
    subprocess.run(["umount", daemons.mountpoint], check=True)
    assert mounted.wait(WAIT)
    assert not note.exists()
    assert keeping.take(str(daemons.mountpoint)) is None
    store = keeping._store
    assert isinstance(store, KeeperProcess)
    leave(store)
    daemons.keepers().close()
    assert store._process is not None
    store._process.wait(WAIT)
