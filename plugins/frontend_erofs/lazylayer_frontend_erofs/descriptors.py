"""Stores that hold the /dev/fuse descriptors of mounts, so that they outlive the process that serves them.

Under a systemd that keeps descriptors (`FileDescriptorStoreMax=` in the unit) it is systemd; otherwise
our own keeper process.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Protocol

from loguru import logger

from lazylayer_frontend_erofs.keeper import SOCKET_NAME

__all__ = ["DescriptorStore", "KeeperProcess", "SystemdStore"]

_START_SECONDS = 10.0
_PAUSE = 0.005
_LARGEST_ANSWER = 1024 * 1024
_FIRST_PASSED = 3


class DescriptorStore(Protocol):
    """Holds descriptors by name. Safe to use from any thread."""

    def put(self, name: str, descriptor: int) -> None:
        """Hold a copy of the descriptor. Raises OSError."""

    def take(self, name: str) -> int | None:
        """Return a copy of a held descriptor, which stays held; None if there is none. Raises OSError."""

    def drop(self, name: str) -> None:
        """Let go of a descriptor. Raises OSError."""

    def get_ready(self) -> None:
        """Prepare for the first call of the others, which then need not wait. Raises OSError."""


class SystemdStore:
    """systemd's descriptor store: see sd_notify(3), FDSTORE, and sd_listen_fds(3).

    :param grace: seconds that descriptors of the last process wait to be taken. Then they are given up:
        readers get errors, where they would otherwise wait for a layer that cannot be opened any more.
    """

    def __init__(self, environment: os._Environ[str] | dict[str, str], grace: float) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._lock = threading.Lock()
        self._passed: dict[str, int] = {}
        if environment.get("LISTEN_PID") == str(os.getpid()):
            names = environment.get("LISTEN_FDNAMES", "").split(":")
            for number in range(int(environment.get("LISTEN_FDS", "0"))):
                os.set_inheritable(_FIRST_PASSED + number, False)
                if number < len(names):
                    self._passed[names[number]] = _FIRST_PASSED + number
        if self._passed:
            expiry = threading.Timer(grace, self._give_up)
            expiry.daemon = True
            expiry.start()

    def _give_up(self) -> None:
        with self._lock:
            left, self._passed = self._passed, {}
        for name, descriptor in left.items():
            os.close(descriptor)
            try:
                self.drop(name)
            except OSError as error:
                logger.warning("systemd keeps a descriptor that no mount took over: {error}", error=error)

    def put(self, name: str, descriptor: int) -> None:
        """See `DescriptorStore.put`."""
        self._send(f"FDSTORE=1\nFDNAME={name}", [descriptor])

    def take(self, name: str) -> int | None:
        """See `DescriptorStore.take`; systemd hands descriptors over when the process starts."""
        with self._lock:
            return self._passed.pop(name, None)

    def drop(self, name: str) -> None:
        """See `DescriptorStore.drop`."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}", [])

    def get_ready(self) -> None:
        """Do nothing: systemd is there already."""

    def _send(self, text: str, descriptors: list[int]) -> None:
        address = "\0" + self._address[1:] if self._address[:1] == "@" else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect(address)
            socket.send_fds(notify, [text.encode()], descriptors)


class KeeperProcess:
    """Our own keeper: see `lazylayer_frontend_erofs.keeper`.

    It is started when it is first needed, and again if it should die; then it is given everything
    anew. `KeeperProcess._lock` is held over a message and its answer, which no network delays.
    """

    def __init__(self, directory: Path, grace: float) -> None:
        self._directory = directory
        self._grace = grace
        self._lock = threading.RLock()
        self._connection: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._held: dict[str, int] = {}

    def put(self, name: str, descriptor: int) -> None:
        """See `DescriptorStore.put`."""
        with self._lock:
            self._let_go(name)
            self._held[name] = os.dup(descriptor)
            self._call({"put": name, "grace": self._grace}, self._held[name])

    def take(self, name: str) -> int | None:
        """See `DescriptorStore.take`."""
        with self._lock:
            answer, descriptor = self._call({"take": name})
            if descriptor is not None:
                self._let_go(name)
                self._held[name] = os.dup(descriptor)
            return descriptor if answer.get("ok") else None

    def drop(self, name: str) -> None:
        """See `DescriptorStore.drop`."""
        with self._lock:
            self._let_go(name)
            # Another process may have put it, into a keeper that this one has not met.
            if self._connection is not None or (self._directory / SOCKET_NAME).exists():
                self._call({"drop": name})

    def get_ready(self) -> None:
        """Start the keeper. See `DescriptorStore.get_ready`."""
        with self._lock:
            self._connect()

    def _let_go(self, name: str) -> None:
        known = self._held.pop(name, None)
        if known is not None:
            os.close(known)

    def _call(self, message: dict[str, object], descriptor: int | None = None) -> tuple[dict[str, object], int | None]:
        """Send a message, to a new keeper if the last one is gone, and return the answer."""
        for last in (False, True):
            connection = self._connect()
            try:
                return _exchange(connection, message, descriptor)
            except (OSError, ValueError):
                self._disconnect()
                if last:
                    raise
        raise AssertionError("not reached")

    def _connect(self) -> socket.socket:
        if self._connection is not None:
            return self._connection
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        deadline = time.monotonic() + _START_SECONDS
        connection = self._try_connect()
        while connection is None or not self._tell_everything(connection):
            if connection is None and (self._process is None or self._process.poll() is not None):
                self._start()
            if time.monotonic() > deadline:
                raise TimeoutError(f"the keeper at {self._directory / SOCKET_NAME} does not answer")
            time.sleep(_PAUSE)
            connection = self._try_connect()
        self._connection = connection
        threading.Thread(target=self._watch, args=(connection,), name="lazylayer-keeping", daemon=True).start()
        return connection

    def _tell_everything(self, connection: socket.socket) -> bool:
        """Give a keeper what the last one held. Return False if it fails: a dying keeper accepts connections, too."""
        try:
            for name, descriptor in self._held.items():
                _exchange(connection, {"put": name, "grace": self._grace}, descriptor)
            answer, _ = _exchange(connection, {"list": True}, None)
        except (OSError, ValueError):
            connection.close()
            return False
        if groups := answer.get("groups"):
            logger.warning("the keeper of mounts stays in {groups}, and ends with it", groups=groups)
        return True

    def _try_connect(self) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # By way of /proc: the directory's own path may be longer than an address can be.
            connection.connect(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
            connection.settimeout(_START_SECONDS)
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        except BaseException:
            connection.close()
            raise
        finally:
            os.close(directory)
        return connection

    def _start(self) -> None:
        script = Path(__file__).with_name("keeper.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script), str(self._directory)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def _watch(self, connection: socket.socket) -> None:
        """Start a new keeper when this one dies, as long as there is something to keep."""
        poll = select.poll()
        poll.register(connection, 0)
        poll.poll()
        with self._lock:
            if self._connection is not connection:
                return
            self._disconnect()
            if self._held:
                logger.warning("the keeper has died; a new one is started")
                with contextlib.suppress(OSError, ValueError):
                    self._connect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def _exchange(
    connection: socket.socket, message: dict[str, object], descriptor: int | None
) -> tuple[dict[str, object], int | None]:
    socket.send_fds(connection, [json.dumps(message).encode()], [] if descriptor is None else [descriptor])
    data, descriptors, _, _ = socket.recv_fds(connection, _LARGEST_ANSWER, 1)
    for each in descriptors:
        os.set_inheritable(each, False)
    if not data:
        raise ConnectionResetError("the keeper closed the connection")
    answer: dict[str, object] = json.loads(data)
    return answer, descriptors[0] if descriptors else None
