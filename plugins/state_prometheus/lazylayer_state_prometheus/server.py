"""Serve metrics over HTTP: `GET /metrics` only, at a TCP address or a unix socket."""

from __future__ import annotations

import os
import socket
import socketserver
import stat
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from prometheus_client.exposition import CONTENT_TYPE_LATEST

from lazylayer_state_prometheus.addresses import parse_address

__all__ = ["MetricsServer"]

_REQUEST_SECONDS = 10.0
_MOST_AT_ONCE = 8


class MetricsServer:
    """A server of the metrics that `render` returns, until it is closed.

    :param address: a valid address, as in the options.

    Raises OSError.
    """

    def __init__(self, address: str, render: Callable[[], bytes]) -> None:
        self._server = _bind(address, _handler(render))
        self._socket = Path(address) if address.startswith("/") else None
        self._thread = threading.Thread(target=self._server.serve_forever, name="lazylayer-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the server. Requests in flight continue."""
        self._server.shutdown()
        self._server.server_close()
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)


class _Threads(socketserver.ThreadingMixIn):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16


class _TcpServer(_Threads, socketserver.TCPServer):
    allow_reuse_address = True


class _Tcp6Server(_TcpServer):
    address_family = socket.AF_INET6


class _UnixServer(_Threads, socketserver.UnixStreamServer):
    pass


def _bind(address: str, handler: type[BaseHTTPRequestHandler]) -> socketserver.BaseServer:
    if address.startswith("/"):
        path = Path(address)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_socket() and stat.S_ISSOCK(path.lstat().st_mode) and not _answers(path):
            path.unlink()
        mask = os.umask(0o177)
        try:
            return _UnixServer(address, handler)
        finally:
            os.umask(mask)
    host, port = parse_address(address)
    return (_Tcp6Server if ":" in host else _TcpServer)((host, port), handler)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(os.fspath(path)) == 0


def _handler(render: Callable[[], bytes]) -> type[BaseHTTPRequestHandler]:
    turn = threading.BoundedSemaphore(_MOST_AT_ONCE)

    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_SECONDS
        server_version = "lazylayer"
        sys_version = ""

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self._answer(404, b"not found; see /metrics\n", "text/plain; charset=utf-8")
            elif not turn.acquire(blocking=False):
                self._answer(503, b"too many requests at once\n", "text/plain; charset=utf-8")
            else:
                try:
                    self._answer(200, render(), CONTENT_TYPE_LATEST)
                finally:
                    turn.release()

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "client"  # a unix socket has no address

        def log_message(self, *_: object) -> None:
            """Log nothing: scrapes come every few seconds."""

    return Handler
