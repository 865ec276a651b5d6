"""Endpoints: the hosts that serve a registry's images, its mirrors and the registry itself."""

from __future__ import annotations

from typing import Literal, get_args

import httpx
import msgspec

from lazylayer.api.oci import DEFAULT_REGISTRY
from lazylayer.errors import ConfigurationError
from lazylayer_resolver_registry.connections import UNCONFIGURED, ConnectionOptions
from lazylayer_resolver_registry.urls import HUB, authority, base_url

__all__ = ["CAPABILITIES", "Capability", "Endpoint", "make_endpoint", "origin_of"]

Capability = Literal["pull", "resolve", "push"]
CAPABILITIES: tuple[Capability, ...] = get_args(Capability)


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One host that serves a registry's images."""

    url: str
    """The root of its API, without a trailing slash: `https://registry.test/v2`."""
    login: str
    """The host to ask keychains for, `name[:port]`."""
    namespace: str = ""
    """The registry that it mirrors, sent as `?ns=`, as one mirror may serve several registries."""
    capabilities: frozenset[str] = frozenset(CAPABILITIES)
    headers: tuple[tuple[str, str], ...] = ()
    """Sent to this host only."""
    connection: ConnectionOptions = UNCONFIGURED
    mirror: bool = False

    def describe(self) -> str:
        """Return its kind, URL and capabilities, for messages."""
        kind = "mirror" if self.mirror else "registry"
        able = ", ".join(each for each in CAPABILITIES if each in self.capabilities)
        return f"{kind} {self.url} ({able or 'no capabilities'})"


def origin_of(host: str, plain_http: bool) -> Endpoint:
    """Return the endpoint of a registry without configuration; `host` is its name in references."""
    return Endpoint(url=f"{base_url(host, plain_http)}/v2".replace("//v2", "/v2"), login=host)


def make_endpoint(
    server: str,
    registry: str,
    *,
    plain_http: bool = False,
    override_path: bool = False,
    capabilities: frozenset[str] = frozenset(CAPABILITIES),
    headers: tuple[tuple[str, str], ...] = (),
    connection: ConnectionOptions = UNCONFIGURED,
    mirror: bool = False,
) -> Endpoint:
    """Return the endpoint that a configuration names as `[http[s]://]host[:port][/path]`.

    :param registry: the host in references whose images it serves.
    :param plain_http: use plain HTTP if `server` has no scheme; always so on loopback.
    :param override_path: use the path unchanged as the root of the API; otherwise append `/v2`.

    Raises ConfigurationError.
    """
    scheme, mark, rest = server.partition("://")
    if not mark:
        scheme, rest = "", server
    host, slash, path = rest.partition("/")
    path = (slash + path).rstrip("/")
    try:
        url = (
            base_url(host, plain_http)
            if not scheme
            else httpx.URL(f"{scheme}://{HUB if host == DEFAULT_REGISTRY else host}")
        )
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"invalid registry URL {server.rpartition('@')[2]!r}: {error}") from error
    if url.userinfo:
        raise ConfigurationError("a registry URL must not hold a user and password; configure a keychain for them")
    if url.scheme not in ("http", "https") or not url.host or "?" in rest or "#" in rest:
        raise ConfigurationError(f"invalid registry URL {server!r}; expected for example https://registry.test")
    if not override_path and not path.endswith("/v2"):
        path += "/v2"
    netloc = authority(url)
    login = registry if netloc in (registry, authority(base_url(registry, plain_http))) else netloc
    return Endpoint(
        url=f"{url.scheme}://{netloc}{path}",
        login=login,
        namespace="" if login == registry else registry,
        capabilities=capabilities,
        headers=headers,
        connection=connection,
        mirror=mirror,
    )
