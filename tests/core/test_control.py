"""The control socket of a process, under bad conditions."""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from lazylayer.api.settings import process_directory
from lazylayer.cli.asking import InvalidRequestError, NoDaemonError, ask_daemon
from lazylayer.cli.channel import ShortPath
from lazylayer.cli.control import Request, processes
from lazylayer.cli.controlserver import ControlServer, Conversation
from lazylayer.errors import InvalidReferenceError, LazylayerError
from lazylayer.mounts.filesystem import Filesystem
from lazylayer.program import Program
from lazylayer_testing.servers.process import wait_until

WAIT = 8.0


class Offered:
    """A command that counts to the number that it is asked for, or waits until it is cancelled."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.cancelled = threading.Event()

    def count(self, arguments: bytes, conversation: Conversation) -> dict[str, int]:
        number = msgspec.json.decode(arguments, type=int)
        if number == 0:
            conversation.on_cancel(self.cancelled.set)
            self.begun.set()
            assert self.cancelled.wait(WAIT)
            assert conversation.cancelled
        if number < 0:
            raise InvalidReferenceError(f"{number} is too small") if number == -1 else ZeroDivisionError("oh")
        for each in range(number):
            conversation.progress(f"{each}\nof {number}")
        return {"counted": number}


@pytest.fixture
def offered() -> Offered:
    return Offered()


@pytest.fixture
def run(tmp_path: Path, offered: Offered) -> Iterator[Path]:
    run = tmp_path / "run"
    overrides = [f"root={tmp_path}/root", f"run={run}", "cache.chunks=cache_memory", "cache.ranges=cache_memory"]
    with (
        Program.load(overrides=overrides) as program,
        closing(Filesystem(program)) as filesystem,
        closing(ControlServer(process_directory(run), filesystem, {"count": offered.count})),
    ):
        yield run


class NoDescriptors:
    """Leaves this process without a free descriptor."""

    def __enter__(self) -> None:
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/proc/self/fd")))  # noqa: PTH208 - names are what is wanted
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, self._limits[1]))
        self._filling = []
        try:
            while True:
                self._filling.append(os.dup(0))
        except OSError:
            pass

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)
        for descriptor in self._filling:
            os.close(descriptor)


def is_accepting() -> bool:
    """Return True if the server's thread waits for a client: accept(2) has a descriptor for it by then."""
    (thread,) = [each for each in threading.enumerate() if each.name == "lazylayer-control"]
    waits_in = Path(f"/proc/self/task/{thread.native_id}/wchan").read_text()
    return waits_in != "0" and "futex" not in waits_in


def ask(peer: socket.socket) -> bytes:
    peer.settimeout(WAIT)
    peer.sendall(msgspec.json.encode(Request("status")) + b"\n")
    return peer.recv(1 << 16)


def test_the_socket_answers_without_a_free_descriptor_and_afterwards(run: Path) -> None:
    (directory,) = (run / "processes").iterdir()
    wait_until(is_accepting, "the server waits for clients")
    silent, *peers = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(4)]
    with silent, ShortPath(directory / "control.sock") as path, NoDescriptors():
        silent.connect(path)  # its answer takes the one descriptor that accept(2) had ahead
        for peer in peers:
            with peer:
                peer.connect(path)
                assert f'"pid":{os.getpid()}'.encode() in ask(peer)
    assert [process.pid for process in processes(run)] == [os.getpid()]


def test_a_command_that_is_offered_tells_of_its_progress_and_returns_a_result(run: Path) -> None:
    lines: list[str] = []
    assert ask_daemon(run, "count", 3, lines.append) == {"counted": 3}
    assert lines == ["0\\nof 3", "1\\nof 3", "2\\nof 3"], "one line each, whatever is in them"


def test_errors_of_a_command_that_is_offered_reach_its_client(run: Path) -> None:
    with pytest.raises(InvalidRequestError, match="-1 is too small"):
        ask_daemon(run, "count", -1, print)
    with pytest.raises(LazylayerError, match=r"ZeroDivisionError: oh \(a defect"):
        ask_daemon(run, "count", -2, print)
    with pytest.raises(LazylayerError, match="Expected `int`"):
        ask_daemon(run, "count", "three", print)


def test_a_command_is_found_where_it_is_offered_alone(run: Path) -> None:
    with pytest.raises(NoDaemonError, match="start `lazylayer serve`"):
        ask_daemon(run, "pull", None, print)
    gone = run / "processes" / "1"
    gone.mkdir()
    (gone / "offers").write_text("count\n")  # of a process that was killed
    assert ask_daemon(run, "count", 1, print) == {"counted": 1}


def test_a_client_that_goes_away_cancels_its_command(run: Path, offered: Offered) -> None:
    (directory,) = (run / "processes").iterdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer, ShortPath(directory / "control.sock") as path:
        peer.connect(path)
        peer.sendall(msgspec.json.encode({"command": "count", "arguments": 0}) + b"\n")
        assert offered.begun.wait(WAIT)
        assert not offered.cancelled.is_set()
    assert offered.cancelled.wait(WAIT)


def test_a_process_that_ends_cancels_what_it_was_asked_for(tmp_path: Path, offered: Offered) -> None:
    run = tmp_path / "run"
    overrides = [f"root={tmp_path}/root", f"run={run}", "cache.chunks=cache_memory", "cache.ranges=cache_memory"]
    with Program.load(overrides=overrides) as program, closing(Filesystem(program)) as filesystem:
        server = ControlServer(process_directory(run), filesystem, {"count": offered.count})
        client = threading.Thread(target=ask_daemon, args=(run, "count", 0, print))
        client.start()
        assert offered.begun.wait(WAIT)
        server.close()
        client.join(WAIT)
        assert not client.is_alive()
