"""Keepers of the EROFS frontend, as its tests start and leave them."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

from lazylayer_frontend_erofs.descriptors import KeeperProcess
from lazylayer_frontend_erofs.keeper import SOCKET_NAME

WAIT = 60.0
"""Seconds after which what should have happened did not."""


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


def leave(client: KeeperProcess) -> None:
    """Do what the death of the client's process does."""
    with client._lock:
        for name in list(client._held):
            client._let_go(name)
        client._disconnect()
