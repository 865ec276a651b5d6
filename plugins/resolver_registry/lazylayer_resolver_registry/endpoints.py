"""The places that serve the images of a registry: its mirrors, and the registry itself, the origin."""

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
    """One place that serves the images of a registry."""

    url: str
    """The root of its API, without a slash at the end: `https://registry.test/v2`."""
    login: str
    """The host that keychains are asked for, `name[:port]`."""
    namespace: str = ""
    """The registry that it stands for, told as `?ns=` to one that stands for several."""
    capabilities: frozenset[str] = frozenset(CAPABILITIES)
    headers: tuple[tuple[str, str], ...] = ()
    """Sent to it, and to nobody else."""
    connection: ConnectionOptions = UNCONFIGURED
    mirror: bool = False

    def describe(self) -> str:
        """For people: what it is, where, and what it is asked for."""
        kind = "mirror" if self.mirror else "registry"
        able = ", ".join(each for each in CAPABILITIES if each in self.capabilities)
        return f"{kind} {self.url} ({able or 'asked for nothing'})"


def origin_of(host: str, plain_http: bool) -> Endpoint:
    """The registry that references name by `host`, when nothing is configured for it."""
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
    """An endpoint from how configurations name it: `[http[s]://]host[:port][/path]`.

    :param registry: the host in references for which it serves images.
    :param plain_http: whether `server` means plain HTTP when it does not say; so it does on loopback.
    :param override_path: whether the path is the root of the API as it stands; `/v2` is added else.

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
        raise ConfigurationError(f"{server.rpartition('@')[2]!r} is not the URL of a registry: {error}") from error
    if url.userinfo:
        raise ConfigurationError("the URL of a registry holds no user and password; configure a keychain for them")
    if url.scheme not in ("http", "https") or not url.host or "?" in rest or "#" in rest:
        raise ConfigurationError(f"{server!r} is not the URL of a registry, as in https://registry.test")
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
