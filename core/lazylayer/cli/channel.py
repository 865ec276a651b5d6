"""Send and receive lines of JSON over the unix sockets of the run directory. Needs the standard library alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path

__all__ = ["MAX_REPLY", "Lines", "ShortPath", "connect"]

MAX_REPLY = 64 * 1024 * 1024
"""Bytes of the longest line that a client believes."""

_PIECE = 256 * 1024


class Lines:
    """Reads a socket line by line. A line has at most `limit` bytes."""

    def __init__(self, peer: socket.socket, limit: int) -> None:
        self._peer = peer
        self._limit = limit
        self._read = bytearray()

    def next(self) -> bytes:
        """Return the next line. Raises ConnectionResetError if there is none, or if it is too long."""
        searched = 0
        while (end := self._read.find(b"\n", searched)) < 0:
            searched = len(self._read)
            piece = self._peer.recv(_PIECE)
            if not piece:
                raise ConnectionResetError("the other side went away")
            self._read += piece
            if len(self._read) > self._limit:
                raise ConnectionResetError(f"the other side sent more than {self._limit} bytes")
        line = bytes(self._read[: end + 1])
        del self._read[: end + 1]
        return line


class ShortPath:
    """A name for a socket that fits the kernel's 107 bytes, wherever the socket lies."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> str:
        self._directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._directory}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        os.close(self._directory)


def connect(path: Path, timeout: float) -> socket.socket:
    """Return a connection to the socket at `path`, which waits `timeout` seconds for the other side. Raises OSError."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(timeout)
    try:
        with ShortPath(path) as short:
            peer.connect(short)
    except BaseException:
        peer.close()
        raise
    return peer
