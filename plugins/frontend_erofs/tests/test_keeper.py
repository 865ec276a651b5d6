"""The keeper: descriptors that outlive their process, and mounts that are taken up again."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lazylayer import kernelmounts
from lazylayer.testing.frontend_facts import differences
from lazylayer.testing.frontend_tree import access_tree, odd_tree
from lazylayer_frontend_erofs import Options
from lazylayer_frontend_erofs.keeper import SOCKET_NAME
from lazylayer_frontend_erofs.keeping import KeeperProcess, Keeping, Note, SystemdStore, open_keeping
from lazylayer_frontend_erofs.mount import mount_tree
from lazylayer_frontend_erofs.probe import what_is_missing

WAIT = 60.0


class Pipe:
    """A descriptor to keep, the end for writing, and a way to see that nobody has it open any more."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def close_ours(self) -> None:
        os.close(self.writing)

    def wait_closed(self) -> bool:
        poll = select.poll()
        poll.register(self.reading, select.POLLIN)
        closed = bool(poll.poll(WAIT * 1000)) and os.read(self.reading, 1) == b""
        os.close(self.reading)
        return closed

    def is_open(self) -> bool:
        poll = select.poll()
        poll.register(self.reading, select.POLLIN)
        return not poll.poll(0)


class Keepers:
    """Clients of one keeper, whose process is ended with the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clients: list[KeeperProcess] = []

    def client(self, grace: float = WAIT) -> KeeperProcess:
        self.clients.append(KeeperProcess(self.directory, grace))
        return self.clients[-1]

    def pid(self) -> int:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(str(self.directory / SOCKET_NAME))
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return int.from_bytes(credentials[:4], sys.byteorder)

    def kill(self) -> int:
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        return pid

    def close(self) -> None:
        for client in self.clients:
            with client._lock:
                for name in list(client._held):
                    client._let_go(name)
                client._disconnect()
        if (self.directory / SOCKET_NAME).exists():
            try:
                pid = self.kill()
            except ConnectionRefusedError:
                return
            for client in self.clients:
                if client._process is not None and client._process.pid == pid:
                    client._process.wait(WAIT)
        for client in self.clients:
            if client._process is not None:
                client._process.wait(WAIT)


@pytest.fixture
def keepers(tmp_path: Path) -> Iterator[Keepers]:
    keepers = Keepers(tmp_path / "keeper")
    yield keepers
    keepers.close()


# --- the process -------------------------------------------------------------------------------------


def test_what_is_put_can_be_taken_by_another_process(keepers: Keepers) -> None:
    pipe = Pipe()
    keepers.client().put("a", pipe.writing)
    other = keepers.client()
    taken = other.take("a")
    assert taken is not None
    assert os.fstat(taken).st_ino == os.fstat(pipe.writing).st_ino
    assert not os.get_inheritable(taken)
    assert other.take("b") is None
    os.close(taken)
    os.close(pipe.writing)
    os.close(pipe.reading)


def test_what_is_dropped_is_closed(keepers: Keepers) -> None:
    pipe, client = Pipe(), keepers.client()
    client.put("a", pipe.writing)
    pipe.close_ours()
    assert pipe.is_open()
    client.drop("a")
    assert pipe.wait_closed()
    assert client.take("a") is None
    client.drop("a")


def test_a_new_descriptor_replaces_the_old_one(keepers: Keepers) -> None:
    first, second, client = Pipe(), Pipe(), keepers.client()
    client.put("a", first.writing)
    client.put("a", second.writing)
    first.close_ours()
    assert first.wait_closed()
    assert second.is_open()
    os.close(second.writing)
    client.drop("a")
    assert second.wait_closed()


def leave(client: KeeperProcess) -> None:
    """What the death of the client's process does."""
    with client._lock:
        for name in list(client._held):
            client._let_go(name)
        client._disconnect()


def test_descriptors_of_a_process_that_is_gone_wait_for_the_next(keepers: Keepers) -> None:
    pipe, client = Pipe(), keepers.client()
    client.put("a", pipe.writing)
    pipe.close_ours()
    leave(client)
    other = keepers.client()
    assert pipe.is_open()
    taken = other.take("a")
    assert taken is not None
    os.close(taken)
    other.drop("a")
    assert pipe.wait_closed()


def test_they_do_not_wait_for_ever(keepers: Keepers) -> None:
    pipe, client = Pipe(), keepers.client(grace=0.05)
    client.put("a", pipe.writing)
    pipe.close_ours()
    leave(client)
    assert pipe.wait_closed()


def test_a_keeper_that_dies_is_replaced_and_told_everything(keepers: Keepers) -> None:
    pipe, client = Pipe(), keepers.client()
    client.put("a", pipe.writing)
    pipe.close_ours()
    first = keepers.kill()
    other = keepers.client()
    taken = None
    pause = threading.Event()
    while taken is None:
        taken = other.take("a")
        pause.wait(0.01)
    assert keepers.pid() != first
    os.close(taken)
    client.drop("a")
    other.drop("a")
    assert pipe.wait_closed()


def test_only_one_keeper_runs(keepers: Keepers) -> None:
    clients = [keepers.client() for _ in range(6)]
    pipes = [Pipe() for _ in clients]
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda number: clients[number].put(str(number), pipes[number].writing), range(6)))
    for number, pipe in enumerate(pipes):
        taken = clients[0].take(str(number))
        assert taken is not None
        os.close(taken)
        os.close(pipe.writing)
        os.close(pipe.reading)


@pytest.mark.parametrize("packet", [b"", b"{", b"[]", b'{"put": "a"}', b'{"take": 7}', b"\xff" * 100, b"x" * 8000])
def test_nonsense_harms_nobody(keepers: Keepers, packet: bytes) -> None:
    pipe, client = Pipe(), keepers.client()
    client.put("a", pipe.writing)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(str(keepers.directory / SOCKET_NAME))
        connection.settimeout(WAIT)
        connection.send(packet)
        assert connection.recv(100) in (b"", b'{"ok": false}', b'{"ok": true, "names": ["a"]}')
    taken = client.take("a")
    assert taken is not None
    os.close(taken)
    os.close(pipe.writing)
    os.close(pipe.reading)


def test_socket_is_for_its_owner_only(keepers: Keepers) -> None:
    keepers.client().take("a")
    assert (keepers.directory / SOCKET_NAME).stat().st_mode & 0o077 == 0
    assert keepers.directory.stat().st_mode & 0o077 == 0


def test_a_long_directory_is_no_obstacle(tmp_path: Path) -> None:
    keepers = Keepers(tmp_path / ("d" * 200))
    assert keepers.client().take("a") is None
    keepers.clients[0]._disconnect()
    process = keepers.clients[0]._process
    assert process is not None
    process.kill()
    process.wait(WAIT)


# --- systemd --------------------------------------------------------------------------------------------


def test_systemd_is_given_descriptors_and_names(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        store = SystemdStore({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        pipe = Pipe()
        store.put("a", pipe.writing)
        data, descriptors, _, _ = socket.recv_fds(systemd, 100, 1)
        assert data == b"FDSTORE=1\nFDNAME=a"
        assert os.fstat(descriptors[0]).st_ino == os.fstat(pipe.writing).st_ino
        store.drop("a")
        assert systemd.recv(100) == b"FDSTOREREMOVE=1\nFDNAME=a"
        for descriptor in (*descriptors, pipe.reading, pipe.writing):
            os.close(descriptor)


def test_systemd_hands_descriptors_over_at_the_start() -> None:
    code = (
        "import os, sys\n"
        "from lazylayer_frontend_erofs.keeping import SystemdStore\n"
        "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "store = SystemdStore(os.environ)\n"
        "taken = store.take('b')\n"
        "assert taken == 4 and not os.get_inheritable(4) and store.take('b') is None\n"
        "assert store.take('a') == 3 and store.take('c') is None\n"
        "os.write(taken, b'here')\n"
    )
    pipe = Pipe()
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" 3>/dev/null 4>/proc/self/fd/{pipe.writing}', "sh", sys.executable, "-c", code],
        env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"},
        pass_fds=[pipe.writing],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert os.read(pipe.reading, 10) == b"here"
    os.close(pipe.reading)
    os.close(pipe.writing)


def test_kind_of_keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_keeping("off", str(tmp_path), 1) is None

    def kind(wanted: str) -> type:
        keeping = open_keeping(wanted, str(tmp_path), 1)  # type: ignore[arg-type]
        assert keeping is not None
        return type(keeping._store)

    monkeypatch.delenv("FDSTORE", raising=False)
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    assert kind("auto") is KeeperProcess
    assert kind("systemd") is SystemdStore
    monkeypatch.setenv("FDSTORE", "512")
    assert kind("auto") is SystemdStore
    assert kind("process") is KeeperProcess


# --- notes ----------------------------------------------------------------------------------------------


class MemoryStore:
    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.failing = False

    def put(self, name: str, descriptor: int) -> None:
        if self.failing:
            raise OSError("away")
        self.held[name] = descriptor

    def take(self, name: str) -> int | None:
        if self.failing:
            raise OSError("away")
        return self.held.get(name)

    def drop(self, name: str) -> None:
        self.held.pop(name, None)


NOTE = Note("/mnt", "0:40", "image", "token")


def test_a_mount_is_kept_with_a_note(tmp_path: Path) -> None:
    keeping = Keeping(MemoryStore(), tmp_path)
    assert keeping.take("/mnt") is None
    keeping.hold("/mnt", NOTE, 7)
    assert keeping.take("/mnt") == (NOTE, 7)
    assert keeping.take("/other") is None
    keeping.forget("/mnt", "of another mount")
    assert keeping.take("/mnt") == (NOTE, 7)
    keeping.forget("/mnt", "token")
    assert keeping.take("/mnt") is None
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_fails_and_a_torn_note_keep_nothing(tmp_path: Path) -> None:
    store = MemoryStore()
    keeping = Keeping(store, tmp_path)
    keeping.hold("/mnt", NOTE, 7)
    store.failing = True
    keeping.hold("/mnt", NOTE, 7)
    assert keeping.take("/mnt") is None
    store.failing = False
    (note,) = tmp_path.iterdir()
    note.write_text("{")
    assert keeping.take("/mnt") is None
    keeping.forget("/mnt", "token")


# --- mounts ---------------------------------------------------------------------------------------------

DAEMON = """
import sys, threading
from pathlib import Path
from lazylayer.mounting import MountOptions
from lazylayer.settings import Settings
from lazylayer.testing import frontend_tree
from lazylayer_frontend_erofs import FrontendErofs

mountpoint, run, tree, hold = sys.argv[1:]
tree = frontend_tree.odd_tree() if tree == "odd" else frontend_tree.access_tree(b"x")
tree.identity = "sample"
plugin = FrontendErofs()
plugin.lazylayer_configure(Settings(root=run, run=run))
mounted = plugin.lazylayer_mount_tree(tree, mountpoint, MountOptions("frontend_erofs"))
if hold == "hold":
    tree.gate.clear()
    threading.Thread(target=lambda: tree.waiting.wait() and print("held", flush=True), daemon=True).start()
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
        if kernelmounts.mount_at(str(self.mountpoint)) is not None:
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
    assert kernelmounts.mount_at(str(daemons.mountpoint)) is None
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
    assert kernelmounts.mount_at(str(daemons.mountpoint)) is None


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
    assert kernelmounts.mount_at(str(daemons.mountpoint)) is None


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
