"""`lazylayer serve` as a process: its start, its socket, its lock and its end."""

from __future__ import annotations

import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.command_line import CommandLine
from servers.lazylayer_daemon import LazylayerDaemon

pytestmark = pytest.mark.fuse


@pytest.fixture
def directory(as_root: None, server_directory: Path) -> Iterator[Path]:
    directory = server_directory / "d"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


def test_systemd_hears_of_start_and_end(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(directory / "notify"))
        systemd.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(directory / "notify"))
        with LazylayerDaemon(directory) as daemon:
            assert systemd.recv(100) == b"READY=1"
            daemon.end(signal.SIGTERM)
            assert systemd.recv(100) == b"STOPPING=1"
            monkeypatch.delenv("NOTIFY_SOCKET")


def test_everything_is_for_root_alone(directory: Path) -> None:
    with LazylayerDaemon(directory) as daemon:
        assert stat.S_IMODE(daemon.address.stat().st_mode) & 0o077 == 0
        for path in (daemon.snapshots, daemon.snapshots.parent, directory / "run"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert daemon.mounts() == []
    assert not daemon.address.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order(directory: Path, number: signal.Signals) -> None:
    with LazylayerDaemon(directory) as daemon:
        for _ in range(3):
            daemon.end(number)
            assert not daemon.address.exists()
            daemon.start()


def test_a_second_daemon_is_refused(directory: Path) -> None:
    with LazylayerDaemon(directory):
        command_line = CommandLine(directory, root=str(directory / "root"), run=str(directory / "run"))
        same_root = command_line.run("serve", "--address", directory / "other.sock", check=False)
        assert same_root.returncode == 1
        assert b"another `lazylayer serve` uses" in same_root.stderr
        other_root = command_line.run(
            "serve", "--root", directory / "other", "--address", directory / "snapshotter.sock", check=False
        )
        assert other_root.returncode == 1
        assert b"another process serves" in other_root.stderr


def test_only_a_socket_is_taken_away(directory: Path) -> None:
    (directory / "file").write_text("mine")
    command_line = CommandLine(directory)
    refused = command_line.run("serve", "--address", directory / "file", check=False)
    assert refused.returncode == 1
    assert b"is not a socket" in refused.stderr
    assert (directory / "file").read_text() == "mine"


def test_the_help_imports_no_grpc() -> None:
    code = "import sys; from lazylayer.cli import main; sys.argv[1:] = ['--help']\ntry: main()\n"
    code += "except SystemExit: pass\nprint('grpc' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("False"), done.stderr
