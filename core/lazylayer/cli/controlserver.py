"""Answer other processes that ask what this one mounts; the protocol is in `lazylayer.cli.control`."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lazylayer.api.decoding import decode_json
from lazylayer.api.text import one_line
from lazylayer.cli.control import MAX_REQUEST, TIMEOUT, ProcessState, Reply, Request, ShortPath, receive
from lazylayer.errors import LazylayerError
from lazylayer.logger import logger

if TYPE_CHECKING:
    from lazylayer.mounts.filesystem import Filesystem

__all__ = ["ControlServer"]

_PAUSE = 0.1
"""Seconds between two attempts to accept a client when no descriptor is free."""


class ControlServer:
    """Answers for this process until it is closed. `directory` is its `process_directory`.

    One descriptor is held in reserve, so that a process that has run out of them still answers.
    """

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
        self._closed = threading.Event()
        self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._answering: set[threading.Thread] = set()
        self._thread = threading.Thread(target=self._serve, name="lazylayer-control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish the answers in flight, stop answering, and remove the directory of this process."""
        (self._directory / "control.sock").unlink(missing_ok=True)
        self._closed.set()
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            logger.debug("control socket: {error}", error=error)
        self._socket.close()
        self._thread.join()
        self._release_reserve()
        for thread in tuple(self._answering):
            thread.join(TIMEOUT)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError as error:
                if self._closed.is_set():
                    return
                logger.warning("control socket: {error}", error=error)
                self._answer_from_reserve()
                continue
            thread = threading.Thread(target=self._answer, args=(peer,), name="lazylayer-control", daemon=True)
            self._answering.add(thread)
            thread.start()

    def _answer_from_reserve(self) -> None:
        """Answer one client when this process has no free descriptor, with the one that is held in reserve."""
        self._release_reserve()
        try:
            peer, _ = self._socket.accept()
            self._answer(peer)
        except OSError:
            self._closed.wait(_PAUSE)  # another thread was faster, or the socket is closed
        try:
            self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            logger.debug("no descriptor in reserve: {error}", error=error)

    def _release_reserve(self) -> None:
        descriptor, self._reserve = self._reserve, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _answer(self, peer: socket.socket) -> None:
        with peer:
            peer.settimeout(TIMEOUT)
            try:
                reply = self._carry_out(decode_json(receive(peer, MAX_REQUEST), Request))
            except (LazylayerError, OSError) as error:
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
