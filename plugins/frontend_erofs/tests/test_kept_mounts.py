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

import msgspec
import pytest

from lazylayer.api.settings import Settings
from lazylayer.linux import mounttable
from lazylayer_frontend_erofs import FrontendErofs, Options
from lazylayer_frontend_erofs.descriptors import KeeperProcess
from lazylayer_frontend_erofs.keeping import open_keeping
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
from lazylayer.errors import MountError
from lazylayer_testing.frontend import trees as frontend_tree
from lazylayer_frontend_erofs import FrontendErofs
from lazylayer_frontend_erofs.options import Options

mountpoint, run, tree, hold = sys.argv[1:]
identity = "" if hold == "anonymous" else f"sample {tree}"
tree = frontend_tree.odd_tree() if tree == "odd" else frontend_tree.access_tree(tree.encode())
tree.identity = identity
plugin = FrontendErofs()
plugin.lazylayer_configure(Settings(root=run, run=run), Options())
try:
    mounted = plugin.lazylayer_mount_tree(tree, mountpoint, MountOptions())
except MountError as error:
    sys.exit(print(error, flush=True))
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
        """Start a process that mounts `tree`: "odd", or the content of a program, of one byte.

        With "hold", reads are held up; with "anonymous", the tree has no identity.
        """
        process, said = self.try_to_start(tree, hold)
        assert said == "ready\n"
        return process

    def try_to_start(self, tree: str, hold: str = "") -> tuple[subprocess.Popen[str], str]:
        """Start a process and return it with what it says: "ready", or why it cannot mount."""
        process = subprocess.Popen(
            [sys.executable, "-c", DAEMON, str(self.mountpoint), str(self.run), tree, hold],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline()

    def note(self) -> Path:
        (note,) = (self.run / "frontend_erofs").glob("*.json")
        return note

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
        pytest.skip(str(missing))
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
@pytest.mark.parametrize("tree", ["odd", "x"])
def test_the_mount_of_a_living_daemon_is_not_taken(daemons: Daemons, tree: str) -> None:
    first = daemons.start()
    with (daemons.mountpoint / "sizes" / "large").open("rb"):
        second, said = daemons.try_to_start(tree)
        assert said == f"{daemons.mountpoint} is already mounted by another process; unmount it first\n"
        second.communicate(timeout=WAIT)
        assert facts(daemons) == []
        daemons.end(first, "leave")
    third = daemons.start()
    assert facts(daemons) == []
    daemons.end(third)
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
    second = daemons.start(tree="x")
    assert differences(access_tree(b"x"), str(daemons.mountpoint)) == []
    daemons.end(second)
    assert mounttable.mount_at(str(daemons.mountpoint)) is None


@pytest.mark.fuse
def test_another_tree_with_the_same_metadata_is_mounted_anew(daemons: Daemons) -> None:
    """Reproducible builds have images whose files differ in nothing but their content."""
    first = daemons.start(tree="x")
    assert (daemons.mountpoint / "program").read_bytes() == b"x"  # which the kernel has in its cache from now on
    daemons.kill(first)
    second = daemons.start(tree="y")
    assert (daemons.mountpoint / "program").read_bytes() == b"y"
    daemons.end(second)
    assert mounttable.mount_at(str(daemons.mountpoint)) is None


@pytest.mark.fuse
def test_a_tree_without_identity_is_never_taken_over(daemons: Daemons) -> None:
    first = daemons.start(tree="x", hold="anonymous")
    assert (daemons.mountpoint / "program").read_bytes() == b"x"
    daemons.kill(first)
    second = daemons.start(tree="y", hold="anonymous")
    assert (daemons.mountpoint / "program").read_bytes() == b"y"
    daemons.end(second)


@pytest.mark.fuse
def test_only_the_noted_mount_is_recognized(daemons: Daemons) -> None:
    daemons.kill(daemons.start())
    plugin = FrontendErofs()
    plugin.lazylayer_configure(Settings(root=str(daemons.run), run=str(daemons.run)), Options())
    there = mounttable.mount_at(str(daemons.mountpoint))
    assert there is not None
    for wrong in ({"kind": "tmpfs"}, {"device": "0:1"}, {"source": b"theirs"}):
        assert plugin.lazylayer_recognize_mount(msgspec.structs.replace(there, **wrong)) is None
    note = json.loads(daemons.note().read_text())
    daemons.note().write_text(json.dumps({**note, "image": "0" * 32}))
    assert plugin.lazylayer_recognize_mount(there) is None
    daemons.note().write_text(json.dumps(note))
    left = plugin.lazylayer_recognize_mount(there)
    assert left is not None and not left.alive
    left.remove()
    assert mounttable.mount_at(str(daemons.mountpoint)) is None
    assert not list((daemons.run / "frontend_erofs").glob("*.json"))


@pytest.mark.fuse
def test_a_mount_whose_keeper_died_too_is_replaced(daemons: Daemons) -> None:
    for _ in range(3):
        first = daemons.start()
        os.kill(first.pid, signal.SIGSTOP)  # lest it replace the keeper
        daemons.keepers().kill()
        daemons.kill(first)
    last = daemons.start()
    assert facts(daemons) == []
    daemons.end(last)
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
        pytest.skip(str(missing))
    keeping = open_keeping("process", str(daemons.run), WAIT)
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
