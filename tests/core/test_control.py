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
from lazylayer.cli.control import Request, ShortPath, processes
from lazylayer.cli.controlserver import ControlServer
from lazylayer.mounts.filesystem import Filesystem
from lazylayer.program import Program
from lazylayer_testing.servers.process import wait_until

WAIT = 8.0


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    run = tmp_path / "run"
    overrides = [f"root={tmp_path}/root", f"run={run}", "cache.chunks=cache_memory", "cache.ranges=cache_memory"]
    with (
        Program.load(overrides=overrides) as program,
        closing(Filesystem(program)) as filesystem,
        closing(ControlServer(process_directory(run), filesystem)),
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
