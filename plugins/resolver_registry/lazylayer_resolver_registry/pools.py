"""The transport of httpx clients: connection pools of httpcore over our own streams."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

__all__ = ["PoolTransport", "make_pool"]

_KEPT_ALIVE = 32
_KEPT_ALIVE_SECONDS = 30.0
"""Longer than httpx's default, since reads are sporadic and a handshake costs round trips. Shorter than
firewalls and NAT keep a silent connection, since losing one costs a time-out."""

_ERRORS: dict[type[Exception], type[httpx.TransportError]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.TimeoutException: httpx.PoolTimeout,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.NetworkError: httpx.ReadError,
    httpcore.ProxyError: httpx.ProxyError,
    httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.ProtocolError: httpx.RemoteProtocolError,
}
"""The first match wins."""


def make_pool(
    context: ssl.SSLContext | None, proxy: httpx.Proxy | None, streams: httpcore.NetworkBackend
) -> httpcore.ConnectionPool:
    """Return a pool of connections over `streams`, directly or through a proxy."""
    options: dict[str, Any] = {
        "ssl_context": context,
        "max_connections": None,  # `HostSlots` limits them, for each host
        "max_keepalive_connections": _KEPT_ALIVE,
        "keepalive_expiry": _KEPT_ALIVE_SECONDS,
        "network_backend": streams,
    }
    if proxy is None:
        return httpcore.ConnectionPool(**options)
    url = httpcore.URL(scheme=proxy.url.raw_scheme, host=proxy.url.raw_host, port=proxy.url.port, target=b"/")
    if proxy.url.scheme.startswith("socks"):
        return httpcore.SOCKSProxy(proxy_url=url, proxy_auth=proxy.raw_auth, **options)
    return httpcore.HTTPProxy(proxy_url=url, proxy_auth=proxy.raw_auth, proxy_headers=proxy.headers.raw, **options)


class PoolTransport(httpx.BaseTransport):
    """Sends the requests of an httpx client through one pool."""

    def __init__(self, pool: httpcore.ConnectionPool) -> None:
        self._pool = pool

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the body of the response is not read yet. Raises httpx.TransportError."""
        assert isinstance(request.stream, httpx.SyncByteStream)
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        sent = httpcore.Request(
            request.method,
            url,
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _as_httpx():
            response = self._pool.handle_request(sent)
        assert isinstance(response.stream, Iterable)
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response.stream),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        with _as_httpx():
            yield from self._pieces

    def close(self) -> None:
        if hasattr(self._pieces, "close"):
            self._pieces.close()


@contextmanager
def _as_httpx() -> Iterator[None]:
    """Turn httpcore's errors into those of httpx."""
    try:
        yield
    except tuple(_ERRORS) as error:
        kind = next(kind for known, kind in _ERRORS.items() if isinstance(error, known))
        raise kind(str(error)) from error
