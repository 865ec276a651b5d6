"""How one lazylayer process asks another what it mounts: a socket in the run directory.

Every process that mounts has a directory `RUN/processes/PID`, root-only like all of `RUN`, with its
socket `control.sock` and, when it runs detached, its `log`. A client writes one JSON object and
reads one: there is nothing to keep open, and nothing to agree on beforehand.

    → {"command": "status"}
    ← {"error": "", "process": {"pid": 1234, "mounts": [...]}}
    → {"command": "unmount", "mountpoint": "/mnt", "force": false}
    ← {"error": "/mnt is in use"}
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
from loguru import logger

from lazylayer.api.events import MountState
from lazylayer.api.text import one_line
from lazylayer.errors import LazylayerError, MountError

if TYPE_CHECKING:
    from lazylayer.mounts.filesystem import Filesystem

__all__ = ["ControlServer", "ProcessState", "find_mount", "process_directory", "processes", "request_unmount"]

MAX_REQUEST = 64 * 1024
MAX_REPLY = 64 * 1024 * 1024
TIMEOUT = 10.0
"""Seconds that a peer may be silent while it writes; a client waits for an unmount without limit."""


class ProcessState(msgspec.Struct, frozen=True):
    """One process and what it mounts."""

    pid: int
    mounts: tuple[MountState, ...]


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    command: Literal["status", "unmount"]
    mountpoint: str = ""
    force: bool = False


class _Reply(msgspec.Struct, frozen=True):
    error: str = ""
    process: ProcessState | None = None


def process_directory(run: Path) -> Path:
    """The directory of this process below the run directory `run`; made, root-only, if need be."""
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = run / "processes" / str(os.getpid())
    directory.parent.mkdir(mode=0o700, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


class ControlServer:
    """Answers for this process until it is closed. `directory` is its `process_directory`."""

    def __init__(self, directory: Path, filesystem: Filesystem) -> None:
        self._directory = directory
        self._filesystem = filesystem
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = directory / "control.sock"
        path.unlink(missing_ok=True)
        try:
            with _ShortPath(path) as short:
                self._socket.bind(short)
            self._socket.listen(16)
        except OSError:
            self._socket.close()
            raise
        self._answering: set[threading.Thread] = set()
        self._thread = threading.Thread(target=self._serve, name="lazylayer-control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops answering, once who is being answered has heard, and removes the directory of this process."""
        (self._directory / "control.sock").unlink(missing_ok=True)
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            logger.debug("control socket: {error}", error=error)
        self._socket.close()
        self._thread.join()
        for thread in tuple(self._answering):
            thread.join(TIMEOUT)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return  # closed
            thread = threading.Thread(target=self._answer, args=(peer,), name="lazylayer-control", daemon=True)
            self._answering.add(thread)
            thread.start()

    def _answer(self, peer: socket.socket) -> None:
        with peer:
            peer.settimeout(TIMEOUT)
            try:
                reply = self._carry_out(msgspec.json.decode(_receive(peer, MAX_REQUEST), type=_Request))
            except (LazylayerError, msgspec.DecodeError, OSError) as error:
                reply = _Reply(error=one_line(str(error)))
            try:
                peer.sendall(msgspec.json.encode(reply) + b"\n")
            except OSError as error:
                logger.debug("control client went away: {error}", error=error)
        self._answering.discard(threading.current_thread())

    def _carry_out(self, request: _Request) -> _Reply:
        if request.command == "unmount":
            self._filesystem.unmount(request.mountpoint, force=request.force)
            return _Reply()
        return _Reply(process=ProcessState(os.getpid(), self._filesystem.mounts()))


def processes(run: Path) -> Iterator[ProcessState]:
    """What each process mounts that answers below the run directory `run`, by pid.

    What a process that is gone left behind is removed on the way.
    """
    directory = run / "processes"
    for each in sorted(directory.iterdir(), key=_pid) if directory.is_dir() else ():
        try:
            reply = _ask(each / "control.sock", _Request("status"), TIMEOUT)
        except (ConnectionRefusedError, FileNotFoundError):
            if not _is_alive(_pid(each)):
                shutil.rmtree(each, ignore_errors=True)
            continue
        except (OSError, msgspec.DecodeError) as error:
            logger.warning("process {pid} does not answer: {error}", pid=each.name, error=error)
            continue
        if reply.process is not None:
            yield reply.process


def find_mount(run: Path, mountpoint: str) -> ProcessState | None:
    """The process that serves `mountpoint`, an absolute path, or None."""
    return next((each for each in processes(run) if any(mount.mountpoint == mountpoint for mount in each.mounts)), None)


def request_unmount(run: Path, pid: int, mountpoint: str, *, force: bool) -> None:
    """Asks process `pid` to unmount; returns when it is done. Raises MountError with its answer."""
    path = run / "processes" / str(pid) / "control.sock"
    try:
        reply = _ask(path, _Request("unmount", mountpoint, force), None)
    except (OSError, msgspec.DecodeError) as error:
        raise MountError(f"{mountpoint}: process {pid} does not answer: {error}") from error
    if reply.error:
        raise MountError(reply.error)


def _ask(path: Path, request: _Request, timeout: float | None) -> _Reply:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(timeout)
        with _ShortPath(path) as short:
            peer.connect(short)
        peer.sendall(msgspec.json.encode(request) + b"\n")
        return msgspec.json.decode(_receive(peer, MAX_REPLY), type=_Reply)


def _receive(peer: socket.socket, limit: int) -> bytes:
    """One line, at most `limit` bytes of it."""
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = peer.recv(256 * 1024)
        if not piece:
            raise ConnectionResetError("the other side went away")
        line += piece
        if len(line) > limit:
            raise ConnectionResetError(f"the other side sent more than {limit} bytes")
    return bytes(line)


def _pid(directory: Path) -> int:
    return int(directory.name) if directory.name.isdigit() else 0


def _is_alive(pid: int) -> bool:
    return pid > 0 and Path(f"/proc/{pid}").exists()


class _ShortPath:
    """A name for a socket that fits the kernel's 107 bytes, wherever the socket lies."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> str:
        self._directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._directory}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        os.close(self._directory)
