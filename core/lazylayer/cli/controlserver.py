"""Answer other processes that ask what this one mounts; the protocol is in `lazylayer.cli.control`."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lazylayer.api.text import one_line
from lazylayer.cli.control import MAX_REQUEST, TIMEOUT, ProcessState, Reply, Request, ShortPath, receive
from lazylayer.errors import LazylayerError
from lazylayer.logger import logger

if TYPE_CHECKING:
    from lazylayer.mounts.filesystem import Filesystem

__all__ = ["ControlServer"]


class ControlServer:
    """Answers for this process until it is closed. `directory` is its `process_directory`."""

    def __init__(self, directory: Path, filesystem: Filesystem) -> None:
        self._directory = directory
        self._filesystem = filesystem
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = directory / "control.sock"
        path.unlink(missing_ok=True)
        try:
            with ShortPath(path) as short:
                self._socket.bind(short)
            self._socket.listen(16)
        except OSError:
            self._socket.close()
            raise
        self._answering: set[threading.Thread] = set()
        self._thread = threading.Thread(target=self._serve, name="lazylayer-control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish the answers in flight, stop answering, and remove the directory of this process."""
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
                reply = self._carry_out(msgspec.json.decode(receive(peer, MAX_REQUEST), type=Request))
            except (LazylayerError, msgspec.DecodeError, OSError) as error:
                reply = Reply(error=one_line(str(error)))
            try:
                peer.sendall(msgspec.json.encode(reply) + b"\n")
            except OSError as error:
                logger.debug("control client went away: {error}", error=error)
        self._answering.discard(threading.current_thread())

    def _carry_out(self, request: Request) -> Reply:
        if request.command == "unmount":
            self._filesystem.unmount(request.mountpoint, force=request.force)
            return Reply()
        return Reply(process=ProcessState(os.getpid(), self._filesystem.mounts()))
