"""Sockets to registries: all of them can be ended at once, and drips count as silence.

httpcore's time-outs apply to each recv(2), so a server that sends a byte now and then holds a reader
forever; and closing a socket does not wake the thread that reads it. `Streams` is the network backend
of all connection pools, and does both.

Never hold `Streams._lock` during input or output.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import httpcore

__all__ = ["LEAST_PROGRESS", "Streams"]

LEAST_PROGRESS = 1024
"""Bytes that a server must send within the read time-out; fewer count as none."""


class Streams(httpcore.NetworkBackend):
    """The open connections of a program. Safe to use from any thread."""

    def __init__(self) -> None:
        self._sockets = httpcore.SyncBackend()
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[_Stream] = weakref.WeakSet()
        self._ended = False

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to a host. Raises httpcore.ConnectError or httpcore.ConnectTimeout."""
        if self._ended:
            raise httpcore.ConnectError("connections were closed")
        stream = self._sockets.connect_tcp(host, port, timeout, local_address, socket_options)
        return self.watch(stream)

    def watch(self, stream: httpcore.NetworkStream) -> httpcore.NetworkStream:
        """Return a stream that `end` ends; end it now if `end` was called before."""
        watched = _Stream(stream, self)
        with self._lock:
            self._open.add(watched)
            ended = self._ended
        if ended:
            watched.end()
        return watched

    def end(self) -> None:
        """Shut down all connections. Threads that read or write wake with an error."""
        with self._lock:
            self._ended = True
            streams = list(self._open)
        for stream in streams:
            stream.end()


class _Stream(httpcore.NetworkStream):
    """One connection. Used by one thread at a time, except `end`."""

    def __init__(self, stream: httpcore.NetworkStream, streams: Streams) -> None:
        self._stream = stream
        self._streams = streams
        self._waited = 0.0
        self._received = 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Receive bytes. Raises httpcore.ReadTimeout if too few came within `timeout` seconds of waiting."""
        left = None if timeout is None else timeout - self._waited
        if left is not None and left <= 0:
            raise self._too_slow(timeout)
        started = time.monotonic()
        try:
            data = self._stream.read(max_bytes, left)
        except httpcore.ReadTimeout as error:
            raise self._too_slow(timeout) from error
        self._waited += time.monotonic() - started
        self._received += len(data)
        if self._received >= LEAST_PROGRESS:
            self._restart()
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes; the server's time to answer starts anew."""
        self._stream.write(buffer, timeout)
        self._restart()

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Return an encrypted stream over this connection."""
        return self._streams.watch(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """Return what the wrapped stream knows."""
        return self._stream.get_extra_info(info)

    def end(self) -> None:
        """Shut the connection down, so that threads that use it wake."""
        connection = self._stream.get_extra_info("socket")
        if isinstance(connection, socket.socket):
            with suppress(OSError):
                # Not SSLSocket.shutdown, which drops its TLS state under the reading thread.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _restart(self) -> None:
        self._waited, self._received = 0.0, 0

    def _too_slow(self, timeout: float | None) -> httpcore.ReadTimeout:
        seconds = f"{timeout or 0:g} s"
        if not self._received:
            return httpcore.ReadTimeout(f"no answer within {seconds}")
        return httpcore.ReadTimeout(f"fewer than {LEAST_PROGRESS} bytes within {seconds}")
