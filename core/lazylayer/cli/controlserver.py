"""Answer other processes that ask what this one mounts, or for a command that it offers.

The protocols are in `lazylayer.cli.control` and `lazylayer.cli.asking`.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lazylayer.api.decoding import decode_json
from lazylayer.api.text import one_line
from lazylayer.cli.asking import OFFERS
from lazylayer.cli.channel import Lines, ShortPath
from lazylayer.cli.control import MAX_REQUEST, TIMEOUT, ProcessState, Reply, Request
from lazylayer.errors import InvalidReferenceError, LazylayerError
from lazylayer.logger import logger

if TYPE_CHECKING:
    from lazylayer.mounts.filesystem import Filesystem

__all__ = ["ControlServer", "Conversation", "Offer"]

_PAUSE = 0.1
"""Seconds between two attempts to accept a client when no descriptor is free."""


class Conversation:
    """A client that waits for a command: it hears of progress, and may go away, which cancels the command.

    Safe to use from any thread.
    """

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._lock = threading.Lock()
        self._cancelled = False
        self._ended = False
        self._on_cancel: list[Callable[[], None]] = []

    @property
    def cancelled(self) -> bool:
        """True once the client has gone, or this process ends."""
        return self._cancelled

    def progress(self, line: str) -> None:
        """Send a line of progress to the client."""
        self._send(msgspec.json.encode({"progress": one_line(line)}))

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once when the command is cancelled, from any thread; at once if it is already."""
        with self._lock:
            if not self._cancelled:
                self._on_cancel.append(callback)
                return
        callback()

    def cancel(self) -> None:
        """Cancel the command. Idempotent."""
        with self._lock:
            if self._cancelled or self._ended:
                return
            self._cancelled = True
            callbacks = list(self._on_cancel)
        for callback in callbacks:
            callback()

    def end(self, reply: Reply) -> None:
        """Send the result. Nothing is cancelled afterwards."""
        with self._lock:
            self._ended = True
        self._send(msgspec.json.encode(reply))

    def watch(self) -> None:
        """Cancel the command when the client goes away; return then, or when the socket was shut down."""
        try:
            self._peer.recv(1)  # clients say nothing more
        except OSError as error:
            logger.debug("control client: {error}", error=error)
        self.cancel()

    def _send(self, line: bytes) -> None:
        try:
            with self._lock:
                self._peer.sendall(line + b"\n")
        except OSError as error:
            logger.debug("control client went away: {error}", error=error)
            self.cancel()


Offer = Callable[[bytes, Conversation], Any]
"""Carries out a command. Gets the JSON of its arguments; returns a result that msgspec can encode."""


class ControlServer:
    """A server that answers for this process until it is closed. `directory` is its `process_directory`.

    One descriptor is held in reserve, so that a process that has run out of them still answers.

    :param offers: commands beside those of every process, by name.
    """

    def __init__(self, directory: Path, filesystem: Filesystem, offers: Mapping[str, Offer] | None = None) -> None:
        self._directory = directory
        self._filesystem = filesystem
        self._offers = dict(offers or {})
        self._conversations: set[Conversation] = set()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = directory / "control.sock"
        path.unlink(missing_ok=True)
        try:
            with ShortPath(path) as short:
                self._socket.bind(short)
            self._socket.listen(64)
            if self._offers:
                (directory / OFFERS).write_text("".join(f"{name}\n" for name in self._offers))
        except OSError:
            self._socket.close()
            raise
        self._closed = threading.Event()
        self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._answering: set[threading.Thread] = set()
        self._thread = threading.Thread(target=self._serve, name="lazylayer-control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cancel offered commands, finish the other answers, and remove the directory of this process."""
        (self._directory / "control.sock").unlink(missing_ok=True)
        self._closed.set()
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            logger.debug("control socket: {error}", error=error)
        self._socket.close()
        self._thread.join()
        self._release_reserve()
        for conversation in tuple(self._conversations):
            conversation.cancel()
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
        try:
            self._answer_request(peer)
        finally:
            self._answering.discard(threading.current_thread())

    def _answer_request(self, peer: socket.socket) -> None:
        with peer:
            peer.settimeout(TIMEOUT)
            try:
                request = decode_json(Lines(peer, MAX_REQUEST).next(), Request)
                offer = self._offers.get(request.command)
                if offer is not None:
                    self._converse(peer, offer, request.arguments)
                    return
                reply = self._carry_out(request)
            except (LazylayerError, OSError) as error:
                reply = Reply(error=one_line(str(error)))
            try:
                peer.sendall(msgspec.json.encode(reply) + b"\n")
            except OSError as error:
                logger.debug("control client went away: {error}", error=error)

    def _carry_out(self, request: Request) -> Reply:
        if request.command == "status":
            return Reply(process=ProcessState(os.getpid(), self._filesystem.mounts()))
        if request.command == "unmount":
            self._filesystem.unmount(request.mountpoint, force=request.force)
            return Reply()
        return Reply(error=f"process {os.getpid()} does not offer the command {request.command}")

    def _converse(self, peer: socket.socket, offer: Offer, arguments: msgspec.Raw) -> None:
        """Carry out an offered command, however long it takes, unless its client goes away."""
        conversation = Conversation(peer)
        self._conversations.add(conversation)
        peer.settimeout(None)
        watcher = threading.Thread(target=conversation.watch, name="lazylayer-control-client", daemon=True)
        watcher.start()
        try:
            if self._closed.is_set():
                conversation.cancel()
            result = msgspec.Raw(msgspec.json.encode(offer(bytes(arguments), conversation)))
            conversation.end(Reply(result=result))
        except (LazylayerError, msgspec.DecodeError, OSError) as error:
            conversation.end(Reply(one_line(str(error)), invalid=isinstance(error, InvalidReferenceError)))
        except Exception as error:  # noqa: BLE001 - a defect of ours is told to the client too
            logger.opt(exception=error).error("a command that a client asked for failed")
            conversation.end(Reply(one_line(f"{type(error).__name__}: {error} (a defect; the daemon's log has more)")))
        finally:
            self._conversations.discard(conversation)
            try:
                peer.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                logger.debug("control client went away: {error}", error=error)
            watcher.join()
