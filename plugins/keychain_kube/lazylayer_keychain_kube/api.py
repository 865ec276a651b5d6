"""List and watch secrets through the Kubernetes API.

Source: "Kubernetes API Concepts" (lists in pages, watches, bookmarks, 410 Gone) of the Kubernetes
documentation. Only metadata and what a pull secret holds is decoded.

One `Connection` belongs to one thread; `interrupt` may be called from another.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx
import msgspec

from lazylayer.api.decoding import decode_json
from lazylayer.errors import FormatError
from lazylayer_keychain_kube.access import Access
from lazylayer_keychain_kube.errors import ApiError, GoneError

__all__ = ["Connection", "Query", "Secret", "WatchEvent"]

_Shape = TypeVar("_Shape")

_MAX_PAGE = 128 * 1024 * 1024
_MAX_EVENT = 8 * 1024 * 1024
_MAX_ERROR = 64 * 1024
_GONE = 410
_CONNECT_SECONDS = 10.0
_LIST_SECONDS = 30.0
# TCP notices after about a minute that a peer vanished.
_KEEP_ALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]

SecretType = Literal["kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"]


class Query(msgspec.Struct, frozen=True):
    """A query for secrets, by type, namespace (empty for all) and labels."""

    type: SecretType
    namespace: str = ""
    label_selector: str = ""

    def __str__(self) -> str:
        return f"secrets of type {self.type} in {self.namespace or 'all namespaces'}"

    @property
    def path(self) -> str:
        """The path of the secrets in the API."""
        return f"/api/v1/namespaces/{self.namespace}/secrets" if self.namespace else "/api/v1/secrets"

    def parameters(self) -> dict[str, str]:
        """Return the query of a request."""
        selectors = {"fieldSelector": f"type={self.type}", "labelSelector": self.label_selector}
        return {name: value for name, value in selectors.items() if value}


class _Metadata(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class Secret(msgspec.Struct, frozen=True):
    """One secret; `data` is base64 by key. `repr` shows its name only."""

    metadata: _Metadata = _Metadata()
    data: dict[str, str] | None = None
    type: str = ""

    def __repr__(self) -> str:
        return f"Secret({self.name})"

    @property
    def name(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"


class WatchEvent(msgspec.Struct, frozen=True):
    """One line of a watch; a BOOKMARK has a secret with nothing but its resource version."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    secret: Secret

    @property
    def resource_version(self) -> str:
        """The resource version from which a later watch goes on."""
        return self.secret.metadata.resource_version


class _SecretList(msgspec.Struct, frozen=True):
    metadata: _Metadata = _Metadata()
    items: list[Secret] = []


class _Status(msgspec.Struct, frozen=True):
    code: int = 0
    reason: str = ""
    message: str = ""


class _RawEvent(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw = msgspec.Raw(b"{}")


class Connection:
    """A connection to the API, or a few. Lists come in pages of `page_items` secrets."""

    def __init__(self, access: Access, page_items: int) -> None:
        self._access = access
        self._page_items = page_items
        self._lock = threading.Lock()
        self._interrupted = False
        self._socket: socket.socket | None = None
        try:
            self._client = httpx.Client(
                base_url=access.server,
                transport=None if access.proxy else httpx.HTTPTransport(verify=access.tls, socket_options=_KEEP_ALIVE),
                verify=access.tls,
                proxy=access.proxy or None,
                headers={"Accept": "application/json", "User-Agent": "lazylayer-keychain-kube"},
                timeout=httpx.Timeout(_LIST_SECONDS, connect=_CONNECT_SECONDS),
                follow_redirects=False,
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise ApiError(f"{access.server}: invalid address: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def interrupt(self) -> None:
        """End the request in flight, which then raises ApiError, and refuse others. From any thread."""
        with self._lock:
            self._interrupted = True
            if self._socket is not None:
                try:
                    self._socket.shutdown(socket.SHUT_RDWR)
                except OSError:  # it ended by itself
                    return

    def list(self, query: Query) -> tuple[list[Secret], str]:
        """Return all secrets, and the resource version from which to watch. Raises ApiError, GoneError."""
        found: list[Secret] = []
        parameters = {**query.parameters(), "limit": str(self._page_items)}
        while True:
            with self._request(query.path, parameters, _LIST_SECONDS) as stream:
                page = _decode(stream.read(_MAX_PAGE), _SecretList)
            found += page.items
            if not page.metadata.continue_:
                return found, page.metadata.resource_version
            parameters["continue"] = page.metadata.continue_

    def watch(self, query: Query, resource_version: str, seconds: float) -> Iterator[WatchEvent]:
        """Yield the changes since `resource_version`, for about `seconds`, after which the API ends the watch.

        Raises ApiError when the API is lost, and GoneError when it wants us to list again.
        """
        parameters = {
            **query.parameters(),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(int(seconds)),
        }
        with self._request(query.path, parameters, seconds + _LIST_SECONDS) as stream:
            for line in stream.lines(_MAX_EVENT):
                yield _decode_event(line)

    def _request(self, path: str, parameters: dict[str, str], idle_seconds: float) -> _Stream:
        headers = {}
        authorization = self._access.authorization()
        if authorization:
            headers["Authorization"] = authorization
        extensions: dict[str, Any] = {"sni_hostname": self._access.server_name} if self._access.server_name else {}
        timeout = httpx.Timeout(_LIST_SECONDS, connect=_CONNECT_SECONDS, read=idle_seconds)
        try:
            request = self._client.build_request(
                "GET", path, params=parameters, headers=headers, timeout=timeout, extensions=extensions
            )
            response = self._client.send(request, stream=True)
        except (httpx.HTTPError, ValueError) as error:
            raise ApiError(f"{self._access.server}: {_reason(error)}") from error
        stream = _Stream(response, self._access.server)
        try:
            self._watch_socket(response)
            if response.status_code != httpx.codes.OK:
                self._refuse(stream)
        except BaseException:
            response.close()
            raise
        return stream

    def _watch_socket(self, response: httpx.Response) -> None:
        network = response.extensions.get("network_stream")
        with self._lock:
            self._socket = network.get_extra_info("socket") if network is not None else None
            if self._interrupted:
                raise ApiError(f"{self._access.server}: interrupted")

    def _refuse(self, stream: _Stream) -> None:
        code = stream.response.status_code
        body = stream.read(_MAX_ERROR)
        try:
            said = decode_json(body, _Status).message
        except FormatError:
            said = ""
        if code == httpx.codes.UNAUTHORIZED:
            self._access.refused()
        raise _status_error(self._access.server, code, said)


class _Stream:
    """The body of an answer, bounded."""

    def __init__(self, response: httpx.Response, server: str) -> None:
        self.response = response
        self._server = server

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.response.close()

    def read(self, limit: int) -> bytes:
        """Read the whole answer. Raises ApiError if it is larger than `limit` bytes."""
        body = bytearray()
        for piece in self._pieces():
            body += piece
            if len(body) > limit:
                raise ApiError(f"{self._server}: the answer is larger than {limit} bytes; choose fewer namespaces")
        return bytes(body)

    def lines(self, limit: int) -> Iterator[bytes]:
        """Yield the answer line by line. Raises ApiError for one that is larger than `limit` bytes."""
        begun = bytearray()
        for piece in self._pieces():
            head, *others = piece.split(b"\n")
            begun += head
            for other in others:
                if begun.strip():
                    yield bytes(begun)
                begun = bytearray(other)
            if len(begun) > limit:
                raise ApiError(f"{self._server}: a watch event is larger than {limit} bytes")

    def _pieces(self) -> Iterator[bytes]:
        try:
            yield from self.response.iter_bytes()
        except httpx.HTTPError as error:
            raise ApiError(f"{self._server}: {_reason(error)}") from error


def _decode_event(line: bytes) -> WatchEvent:
    event = _decode(line, _RawEvent)
    if event.type == "ERROR":
        status = _decode(bytes(event.object), _Status)
        raise _status_error("the watch", status.code, status.message)
    if event.type not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
        raise ApiError(f"a watch event has an unknown type, {event.type[:40]!r}")
    return WatchEvent(event.type, _decode(bytes(event.object), Secret))  # type: ignore[arg-type]


def _status_error(where: str, code: int, said: str) -> ApiError:
    message = f"{where}: {code}{f' {said[:500]}' if said else ''}"
    if code == _GONE:
        return GoneError(message)
    if code == httpx.codes.UNAUTHORIZED:
        message += "; it does not know us: check the user in the kubeconfig, or the service account"
    if code == httpx.codes.FORBIDDEN:
        message += "; allow this user to list and watch secrets"
    return ApiError(message)


def _decode(data: bytes, shape: type[_Shape]) -> _Shape:
    try:
        return decode_json(data, shape)
    except FormatError as error:
        raise ApiError(f"invalid answer of the API: {error}") from None


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
