"""The HTTP side of a scripted registry: connections, reading requests, sending answers with faults."""

from __future__ import annotations

import io
import socket
import struct
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from lazylayer_testing.registry.answers import Answer
from lazylayer_testing.registry.faults import Fault, wait
from lazylayer_testing.registry.recording import RecordedRequest

__all__ = ["Responder", "Server"]

_PIECE = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Responder(Protocol):
    """The service behind a server; called from one thread for each connection."""

    def begin(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> tuple[RecordedRequest, Fault]:
        """Record a request that came."""

    def answer(self, request: RecordedRequest, fault: Fault) -> Answer:
        """Return the answer to the request."""

    def finish(self, request: RecordedRequest) -> None:
        """Record the end of the request."""


class _ConnectionOverError(Exception):
    """The connection is to be closed now."""


class Server(ThreadingHTTPServer):
    """Serves on a free port of `address`, one thread for each connection, until `stop`."""

    # Connections are closed by stop(), so that their threads can be waited for.
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(self, address: str, responder: Responder) -> None:
        self.responder = responder
        self.closing = threading.Event()
        self.accepted = 0
        self._open: set[socket.socket] = set()
        self._to_reset: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, 0), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name="scripted-registry", daemon=True)

    def start(self) -> None:
        """Start to accept connections."""
        self._thread.start()

    def stop(self) -> None:
        """Close all connections and return when all threads have ended."""
        self.closing.set()
        self.shutdown()
        self._thread.join()
        self.close_connections()
        self.server_close()

    def close_connections(self) -> None:
        """Close the connections that are open now; new ones are accepted."""
        with self._lock:
            for each in self._open:
                try:
                    each.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def process_request(self, request: Any, client_address: Any) -> None:
        """Note a new connection and serve it in a thread."""
        with self._lock:
            self.accepted += 1
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, with a reset if it was asked for."""
        with self._lock:
            self._open.discard(request)
            reset = request in self._to_reset
            self._to_reset.discard(request)
        if reset:
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            request.close()
        else:
            super().shutdown_request(request)

    def reset_when_closed(self, request: Any) -> None:
        """End this connection with a TCP reset."""
        with self._lock:
            self._to_reset.add(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Show an error, unless the client merely went away."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave in one segment, at once: otherwise Nagle's algorithm and delayed
    # acknowledgements make every small answer take 40 ms.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Server

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (_ConnectionOverError, ConnectionError):
            self.close_connection = True

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:  # the client went away; what was not sent is dropped
            self.rfile.close()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request, fault = self.server.responder.begin(
            self.command, url.path, _query(url.query), headers, self._read_body()
        )
        try:
            if fault.hold is not None:
                fault.hold.hold()
            wait(fault.delay, self.server.closing)
            if fault.reset_after == -1:
                self._reset()
            answer = self.server.responder.answer(request, fault)
            self._send(request, answer, fault)
        finally:
            self.server.responder.finish(request)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - names that http.server looks for

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = bytearray()
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return bytes(body)
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _send(self, request: RecordedRequest, answer: Answer, fault: Fault) -> None:
        body = answer.body if fault.body is None else fault.body
        if fault.rewrite is not None:
            body = fault.rewrite(body)
        headers = {"Content-Length": str(len(body)), **answer.headers}
        if fault.content_range is not None:
            headers["Content-Range"] = fault.content_range
        for name, value in fault.headers.items():
            headers = {other: kept for other, kept in headers.items() if other.lower() != name.lower()}
            headers[name] = value
        if fault.without_length:
            headers.pop("Content-Length", None)
            headers["Connection"] = "close"
            self.close_connection = True
        request.status = answer.status
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self._send_head(fault)
        if self.command != "HEAD":
            self._send_body(request, memoryview(body), fault)

    def _send_head(self, fault: Fault) -> None:
        """Send the buffered head, in pieces if the fault says so."""
        if fault.drip_head is None:
            self.end_headers()
            return
        client, self.wfile = self.wfile, io.BytesIO()
        self.end_headers()
        head, self.wfile = self.wfile.getvalue(), client
        size, pause = fault.drip_head
        for position in range(0, len(head), size):
            self.wfile.write(head[position : position + size])
            self.wfile.flush()
            wait(pause, self.server.closing)

    def _send_body(self, request: RecordedRequest, body: memoryview, fault: Fault) -> None:
        size, pause = fault.drip or (_PIECE, 0.0)
        stops = sorted(
            each for each in (fault.truncate_after, fault.reset_after, fault.stall_after) if each is not None
        )
        position = 0
        while True:
            while stops and position >= stops[0]:
                self._stop_at(stops.pop(0), fault)
            if position >= len(body):
                return
            piece = body[position : min(position + size, stops[0]) if stops else position + size]
            request.sent += len(piece)
            self.wfile.write(piece)
            position += len(piece)
            if fault.drip is not None:
                self.wfile.flush()
                wait(pause, self.server.closing)

    def _stop_at(self, position: int, fault: Fault) -> None:
        self.wfile.flush()
        if position == fault.stall_after:
            if fault.stall_until is not None:
                fault.stall_until.hold()
            wait(fault.stall_seconds, self.server.closing)
        if position == fault.reset_after:
            self._reset()
        if position == fault.truncate_after:
            raise _ConnectionOverError

    def _reset(self) -> None:
        self.server.reset_when_closed(self.connection)
        raise _ConnectionOverError


def _query(text: str) -> dict[str, str]:
    query: dict[str, str] = {}
    for name, value in parse_qsl(text):
        query[name] = f"{query[name]} {value}" if name in query else value
    return query
