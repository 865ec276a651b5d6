"""Send requests to one endpoint, and to hosts it redirects to, which never see its headers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import httpx

from lazylayer_resolver_registry.endpoints import Endpoint
from lazylayer_resolver_registry.transport import Retries, Transport
from lazylayer_resolver_registry.urls import same_origin

__all__ = ["EndpointClient"]


class EndpointClient:
    """A client for one endpoint, with its certificates and headers. Safe to use from any thread."""

    def __init__(self, transport: Transport, endpoint: Endpoint) -> None:
        self.transport = transport
        self.endpoint = endpoint
        self.root = httpx.URL(endpoint.url)
        self._elsewhere = endpoint.connection.elsewhere()

    def url(self, path: str) -> httpx.URL:
        """Return the URL of `path` below the root of the API."""
        parameters = {"ns": self.endpoint.namespace} if self.endpoint.namespace else None
        return self.root.copy_with(path=f"{self.root.path}/{path}", params=parameters)

    def owns(self, url: httpx.URL) -> bool:
        """Return True if `url` is on the endpoint itself, so it may get headers and credentials."""
        return same_origin(url, self.root)

    def send(
        self, method: str, url: httpx.URL, headers: Mapping[str, str], content: bytes | None = None
    ) -> AbstractContextManager[httpx.Response]:
        """Send a request; headers and client certificates go to the endpoint only. See `Transport.send`."""
        if not self.owns(url):
            return self.transport.send(method, url, headers, content, self._elsewhere)
        merged = [*_without(self.endpoint.headers, headers), *headers.items()]
        return self.transport.send(method, url, merged, content, self.endpoint.connection)

    def retries(self, attempts: int = 0) -> Retries:
        """Return a new count of attempts, by default fewer for a mirror than for a registry."""
        options = self.transport.options
        return self.transport.retries(attempts or (options.mirror_attempts if self.endpoint.mirror else 0))


def _without(configured: tuple[tuple[str, str], ...], sent: Mapping[str, str]) -> list[tuple[str, str]]:
    names = {name.lower() for name in sent}
    return [(name, value) for name, value in configured if name.lower() not in names]
