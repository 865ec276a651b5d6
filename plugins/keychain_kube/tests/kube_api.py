"""A stand-in for the part of the Kubernetes API that has secrets: lists in pages, and watches.

It behaves as kube-apiserver does: resource versions grow with each change, lists have pages whose
tokens expire, watches go on from a version or say 410 Gone when it is too old, send bookmarks, end
after `timeoutSeconds`, and show changes of labels as additions and deletions to a selector.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit

SecretObject = dict[str, Any]
DOCKER_CONFIG = "kubernetes.io/dockerconfigjson"
LEGACY_CONFIG = "kubernetes.io/dockercfg"


class ApiRequest(NamedTuple):
    """One request as it came; `certificate` is the common name of the client's."""

    path: str
    parameters: dict[str, str]
    authorization: str
    certificate: str

    @property
    def is_watch(self) -> bool:
        return self.parameters.get("watch") == "true"


class _Change(NamedTuple):
    version: int
    before: SecretObject | None
    after: SecretObject | None


class KubeApi:
    """The API on a port of 127.0.0.1; a context manager. Everything may be called from any thread.

    `tokens`, when set, are the bearer tokens that are accepted; `certificates` the names of clients.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, port: int = 0, page_items: int = 100) -> None:
        self.tokens: set[str] | None = None
        self.certificates: set[str] | None = None
        self.gone_as: Literal["event", "status"] = "event"
        self.refuse_with = 0
        self.requests: list[ApiRequest] = []
        self.page_items = page_items
        self.expired_pages = 0
        self._changed = threading.Condition()
        self._secrets: dict[tuple[str, str], SecretObject] = {}
        self._version = 100
        self._oldest = 100
        self._history: list[_Change] = []
        self._bookmark = 0
        self._sockets: set[socket.socket] = set()
        self._watching = 0
        self._closing = False
        self._tls = tls
        self._port = port
        self._server: ThreadingHTTPServer | None = None

    # --- serving -------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Serves; again after `stop`, on the same port and with the same secrets."""
        api = self

        class Handler(_Handler):
            pass

        Handler.api = api
        self._closing = False
        self._server = _Server(("127.0.0.1", self._port), Handler)
        self._server.api = self
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}).start()

    def stop(self) -> None:
        """End every connection and the server."""
        server, self._server = self._server, None
        if server is None:
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        server.shutdown()
        self.disconnect()
        server.server_close()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        return self._port

    def disconnect(self) -> None:
        """Break off all connections, whatever they are doing."""
        with self._changed:
            sockets = list(self._sockets)
        for each in sockets:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    # --- secrets -------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        return self._version

    @property
    def watching(self) -> int:
        """The number of watches in flight."""
        return self._watching

    def count(self, *, watches: bool) -> int:
        """Return the number of requests that came, to list or to watch."""
        return sum(each.is_watch == watches for each in self.requests)

    def put(
        self,
        name: str,
        data: Mapping[str, bytes | str],
        *,
        namespace: str = "default",
        kind: str = DOCKER_CONFIG,
        labels: Mapping[str, str] | None = None,
    ) -> int:
        """Create or replace a secret; `data` is encoded as base64 if it is bytes. Return its version."""
        encoded = {
            key: base64.b64encode(value).decode() if isinstance(value, bytes) else value for key, value in data.items()
        }
        with self._changed:
            self._version += 1
            metadata = {"name": name, "namespace": namespace, "resourceVersion": str(self._version)}
            if labels:
                metadata["labels"] = dict(labels)  # type: ignore[assignment]
            new = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": encoded}
            self._record(self._secrets.get((namespace, name)), new)
            self._secrets[namespace, name] = new
        return self._version

    def put_login(self, name: str, logins: Mapping[str, tuple[str, str]], **options: Any) -> int:
        """Create or replace a secret with logins by host, in the form of its `kind`."""
        auths = {host: {"username": user, "password": password} for host, (user, password) in logins.items()}
        legacy = options.get("kind") == LEGACY_CONFIG
        text = json.dumps(auths if legacy else {"auths": auths}).encode()
        return self.put(name, {".dockercfg" if legacy else ".dockerconfigjson": text}, **options)

    def delete(self, name: str, namespace: str = "default") -> int:
        """Delete a secret. Return the version of the deletion."""
        with self._changed:
            self._version += 1
            old = self._secrets.pop((namespace, name))
            self._record(old, None)
        return self._version

    def delete_all(self) -> None:
        """Delete every secret."""
        for namespace, name in list(self._secrets):
            self.delete(name, namespace)

    def compact(self) -> None:
        """Forget history: versions older than now are gone, and so are the pages of lists."""
        with self._changed:
            self._version += 1
            self._oldest = self._version
            self._history.clear()

    def send_bookmarks(self) -> int:
        """Send every watch a bookmark. Return its version."""
        with self._changed:
            self._bookmark += 1
            self._changed.notify_all()
        return self._version

    def _record(self, before: SecretObject | None, after: SecretObject | None) -> None:
        self._history.append(_Change(self._version, before, after))
        self._changed.notify_all()

    # --- answering -------------------------------------------------------------------------------------

    def answer(self, request: ApiRequest, handler: _Handler) -> None:
        self.requests.append(request)
        code = self._refusal(request)
        if code:
            handler.send_status(code, f"user may not list secrets ({code})")
        elif request.is_watch:
            self._watch(request, handler)
        else:
            self._list(request, handler)

    def _refusal(self, request: ApiRequest) -> int:
        if self.refuse_with:
            return self.refuse_with
        if self.tokens is not None and request.authorization.removeprefix("Bearer ") not in self.tokens:
            return 401
        if self.certificates is not None and request.certificate not in self.certificates:
            return 401
        return 0

    def _list(self, request: ApiRequest, handler: _Handler) -> None:
        with self._changed:
            fitting = [each for _, each in sorted(self._secrets.items()) if _fits(each, request)]
            version, start = self._version, 0
            token = request.parameters.get("continue")
            if token:
                of_version, start = json.loads(base64.b64decode(token))
                if of_version < self._oldest:
                    self.expired_pages += 1
                    handler.send_status(410, "The provided continue parameter is too old")
                    return
                version = of_version
        size = min(self.page_items, int(request.parameters.get("limit", "100000")))
        end = start + size
        metadata = {"resourceVersion": str(version)}
        if end < len(fitting):
            metadata["continue"] = base64.b64encode(json.dumps([version, end]).encode()).decode()
        handler.send_json(
            200, {"kind": "SecretList", "apiVersion": "v1", "metadata": metadata, "items": fitting[start:end]}
        )

    def _watch(self, request: ApiRequest, handler: _Handler) -> None:
        version = int(request.parameters["resourceVersion"])
        deadline = time.monotonic() + float(request.parameters.get("timeoutSeconds", "1800"))
        with self._changed:
            too_old = version < self._oldest
            bookmark = self._bookmark
        message = f"too old resource version: {version} ({self._oldest})"
        if too_old and self.gone_as == "status":
            handler.send_status(410, message)
            return
        handler.begin_stream()
        if too_old:
            handler.send_event("ERROR", _status(410, message))
            handler.end_stream()
            return
        self._watching += 1
        try:
            while time.monotonic() < deadline:
                news = self._wait_for_news(version, bookmark, deadline)
                if self._closing:
                    return
                version, bookmark, changes, wanted = news
                for change in changes:
                    _send_change(change, request, handler)
                if wanted and request.parameters.get("allowWatchBookmarks") == "true":
                    mark = {"kind": "Secret", "apiVersion": "v1", "metadata": {"resourceVersion": str(version)}}
                    handler.send_event("BOOKMARK", mark)
            handler.end_stream()
        finally:
            self._watching -= 1

    def _wait_for_news(self, version: int, bookmark: int, deadline: float) -> tuple[int, int, list[_Change], bool]:
        """Version and bookmark as they are now, the changes until then, and whether to send a bookmark."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing or self._version > version or self._bookmark > bookmark,
                max(0.0, min(0.5, deadline - time.monotonic())),
            )
            changes = [each for each in self._history if each.version > version]
            return self._version, self._bookmark, changes, self._bookmark > bookmark

    def opened(self, connection: socket.socket) -> None:
        with self._changed:
            self._sockets.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._changed:
            self._sockets.discard(connection)

    def secure(self, connection: socket.socket) -> socket.socket:
        return self._tls.wrap_socket(connection, server_side=True) if self._tls else connection


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 50
    api: KubeApi

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors of connections: the tests break them off."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = 60
    api: KubeApi

    def setup(self) -> None:
        self.request = self.api.secure(self.request)
        self.api.opened(self.request)
        super().setup()

    def finish(self) -> None:
        self.api.closed(self.request)
        try:
            super().finish()
        except OSError:
            pass
        finally:
            self.request.close()

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        certificate = ""
        if isinstance(self.request, ssl.SSLSocket):
            subject: Any = (self.request.getpeercert() or {}).get("subject", ())
            certificate = next((value for part in subject for key, value in part if key == "commonName"), "")
        request = ApiRequest(url.path, dict(parse_qsl(url.query)), self.headers.get("Authorization", ""), certificate)
        self.api.answer(request, self)

    def send_json(self, code: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def send_status(self, code: int, message: str) -> None:
        self.send_json(code, _status(code, message))

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

    def send_event(self, kind: str, content: object) -> None:
        line = json.dumps({"type": kind, "object": content}).encode() + b"\n"
        # In two pieces, since the network may cut a line anywhere.
        for piece in (line[: len(line) // 2], line[len(line) // 2 :]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()

    def end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()


def _send_change(change: _Change, request: ApiRequest, handler: _Handler) -> None:
    before = change.before if change.before is not None and _fits(change.before, request) else None
    after = change.after if change.after is not None and _fits(change.after, request) else None
    if after is not None:
        handler.send_event("MODIFIED" if before is not None else "ADDED", after)
    elif before is not None:
        gone = {**before, "metadata": {**before["metadata"], "resourceVersion": str(change.version)}}
        handler.send_event("DELETED", gone)


def _fits(secret: SecretObject, request: ApiRequest) -> bool:
    parts = request.path.split("/")
    namespace = parts[4] if "namespaces" in parts else ""
    metadata = secret["metadata"]
    if namespace and metadata["namespace"] != namespace:
        return False
    field = request.parameters.get("fieldSelector", "")
    if field and field != f"type={secret['type']}":
        return False
    wanted = dict(each.split("=", 1) for each in request.parameters.get("labelSelector", "").split(",") if each)
    labels: dict[str, str] = metadata.get("labels", {})
    return wanted.items() <= labels.items()


def _status(code: int, message: str) -> dict[str, object]:
    reasons = {401: "Unauthorized", 403: "Forbidden", 410: "Expired", 500: "InternalError"}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reasons.get(code, "Unknown"),
        "code": code,
    }
