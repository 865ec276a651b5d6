"""The keeper: descriptors that outlive the process that put them there."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lazylayer.errors import MountError
from lazylayer_frontend_erofs import keeper
from lazylayer_frontend_erofs.descriptors import KeeperProcess, SystemdStore
from lazylayer_frontend_erofs.keeper import SOCKET_NAME
from lazylayer_frontend_erofs.keeping import Keeping, open_keeping
from lazylayer_frontend_erofs.notes import Note

from .keepers import WAIT, Keepers, leave


class Pipe:
    """A descriptor to keep, the end for writing, and a way to see that no process has it open any more."""

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


@pytest.fixture
def keepers(tmp_path: Path) -> Iterator[Keepers]:
    keepers = Keepers(tmp_path / "keeper")
    yield keepers
    keepers.close()


# --- the process -------------------------------------------------------------------------------------


HIERARCHIES = ("name=systemd", "memory", "")


def hierarchies() -> dict[str, Path]:
    """Return where control groups of each hierarchy are made here, by its name; cgroup v2 has none."""
    found = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options = line.split(" ")[:4]
        for name in HIERARCHIES:
            if (kind == "cgroup2") if not name else (kind == "cgroup" and name in options.split(",")):
                found[name] = Path(place)
    return found


def test_the_keeper_leaves_the_control_groups_of_the_daemon(tmp_path: Path) -> None:
    """They may be killed as a whole; the machine may have cgroup v1, v2 or both."""
    groups = []
    try:
        for place in hierarchies().values():
            try:
                (group := place / f"lazylayer-test-{os.getpid()}").mkdir()
            except OSError as error:
                pytest.skip(f"no control groups can be made here: {error}")
            groups.append(group)
        enter = "; ".join(f"echo $$ >{group}/cgroup.procs" for group in groups)
        script = Path(keeper.__file__)
        command = f'{enter}; exec "{sys.executable}" -I -S "{script}" "{tmp_path}"'
        with subprocess.Popen(["sh", "-c", command]) as process:
            client = Keepers(tmp_path).client()
            while not (tmp_path / SOCKET_NAME).exists():
                threading.Event().wait(0.01)
            answer, _ = client._call({"list": True})
            left = Path(f"/proc/{process.pid}/cgroup").read_text()
            process.kill()
        client._disconnect()
        assert f"lazylayer-test-{os.getpid()}" not in left
        assert answer["groups"] == []
    finally:
        for group in groups:
            group.rmdir()


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


def test_a_keeper_that_was_started_ahead_is_the_one_that_holds(keepers: Keepers) -> None:
    pipe, client = Pipe(), keepers.client()
    client.get_ready()
    pid = keepers.pid()
    client.get_ready()
    client.put("a", pipe.writing)
    assert keepers.pid() == pid
    client.drop("a")
    os.close(pipe.writing)
    assert pipe.wait_closed()


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
        answer = connection.recv(1000)
        assert answer in (b"", b'{"ok": false}') or answer.startswith(b'{"ok": true, "names": ["a"]')
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
        store = SystemdStore({"NOTIFY_SOCKET": str(tmp_path / "notify")}, WAIT)
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
        "from lazylayer_frontend_erofs.descriptors import SystemdStore\n"
        "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "store = SystemdStore(os.environ, 60)\n"
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


def test_descriptors_from_systemd_that_are_not_taken_are_given_up() -> None:
    """A layer that cannot be opened any more: its readers must not wait forever."""
    code = (
        "import os, socket, sys\n"
        "from lazylayer_frontend_erofs.descriptors import SystemdStore\n"
        "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "systemd.bind('\\0lazylayer-test-%d' % os.getpid())\n"
        "systemd.settimeout(60)\n"
        "os.environ['NOTIFY_SOCKET'] = '@lazylayer-test-%d' % os.getpid()\n"
        "store = SystemdStore(os.environ, 0.3)\n"
        "assert store.take('b') == 4\n"
        "assert systemd.recv(100) == b'FDSTOREREMOVE=1\\nFDNAME=a'\n"
        "assert '/dev/null' not in os.path.realpath('/proc/self/fd/3')  # the number may be another file's by now\n"
        "assert os.readlink('/proc/self/fd/4') == '/dev/null'\n"
        "assert store.take('a') is None\n"
    )
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 3</dev/null 4</dev/null', "sh", sys.executable, "-c", code],
        env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"},
        check=False,
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert done.returncode == 0, done.stderr


def test_kind_of_keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not open_keeping("off", str(tmp_path), 1).keeps_served

    def kind(wanted: str) -> type:
        return type(open_keeping(wanted, str(tmp_path), 1)._store)  # type: ignore[arg-type]

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

    def get_ready(self) -> None:
        if self.failing:
            raise OSError("away")


NOTE = Note(mountpoint="/mnt", device="0:40", image="0" * 32, token="token")


def test_a_mount_is_kept_with_a_note(tmp_path: Path) -> None:
    store = MemoryStore()
    keeping, successor = Keeping(store, tmp_path), Keeping(store, tmp_path)
    assert keeping.take("/mnt") is None
    keeping.hold(NOTE, 7)
    keeping.leave("/mnt")
    assert successor.take("/other") is None
    assert successor.take("/mnt") == (NOTE, 7)
    successor.forget("/mnt", "of another mount")
    assert store.held != {}
    successor.forget("/mnt", "token")
    assert successor.take("/mnt") is None
    assert store.held == {}
    assert list(tmp_path.iterdir()) == []


def test_what_a_living_process_has_is_not_taken(tmp_path: Path) -> None:
    store = MemoryStore()
    keeping, other = Keeping(store, tmp_path), Keeping(store, tmp_path)
    keeping.hold(NOTE, 7)
    assert other.is_taken("/mnt") and not keeping.is_taken("/mnt")
    with pytest.raises(MountError, match="/mnt is already mounted by another process"):
        other.take("/mnt")
    keeping.leave("/mnt")
    assert not other.is_taken("/mnt")
    assert other.take("/mnt") == (NOTE, 7)
    assert keeping.is_taken("/mnt")


def test_a_store_that_fails_gives_no_descriptor(tmp_path: Path) -> None:
    store = MemoryStore()
    keeping = Keeping(store, tmp_path)
    keeping.hold(NOTE, 7)
    store.failing = True
    keeping.get_ready()
    keeping.hold(NOTE, 7)
    keeping.leave("/mnt")
    assert Keeping(store, tmp_path).take("/mnt") == (NOTE, -1)


def test_a_torn_note_keeps_nothing(tmp_path: Path) -> None:
    keeping = Keeping(MemoryStore(), tmp_path)
    keeping.hold(NOTE, 7)
    keeping.leave("/mnt")
    (note,) = tmp_path.iterdir()
    note.write_text("{")
    assert keeping.take("/mnt") is None
    keeping.forget("/mnt", "token")
