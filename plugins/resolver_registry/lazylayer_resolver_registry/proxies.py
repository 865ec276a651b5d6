"""Choose the proxy of a URL from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.

`NO_PROXY` is parsed as in Go (golang.org/x/net/http/httpproxy), so as in containerd and kubelet: names
with their subdomains (`.test` and `*.test`: subdomains only), addresses, networks, and `*` for
everything. Names and addresses may have a port. Hosts on this machine never use a proxy.
"""

from __future__ import annotations

import ipaddress
import urllib.request
from collections.abc import Mapping
from typing import NamedTuple

import httpx

from lazylayer_resolver_registry.urls import is_loopback, port_of

__all__ = ["Proxies"]


class _Exception(NamedTuple):
    """One entry of NO_PROXY: a network, or a name; `port` is 0 for every port."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None
    name: str
    port: int

    def matches(self, url: httpx.URL) -> bool:
        if self.port not in (0, port_of(url)):
            return False
        if self.network is not None:
            return _is_in(url.host, self.network)
        name = url.host.removesuffix(".")
        return self.name in ("*", name) or name.endswith("." + self.name.removeprefix("."))


class Proxies:
    """The proxies of an environment. Immutable."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        """Parse `variables`, keyed by scheme, `all` and `no` as in `urllib.request.getproxies_environment`."""
        self._by_scheme = {scheme: variables.get(scheme) or variables.get("all", "") for scheme in ("http", "https")}
        entries = [entry.strip().lower() for entry in variables.get("no", "").split(",")]
        self._exceptions = [_exception(entry) for entry in entries if entry]

    @classmethod
    def of_environment(cls) -> Proxies:
        """Return the proxies of the current environment."""
        return cls(urllib.request.getproxies_environment())

    def proxy(self, url: httpx.URL) -> str:
        """Return the URL of the proxy for `url`, possibly with a password; "" for a direct connection."""
        proxy = self._by_scheme.get(url.scheme, "")
        if not proxy or is_loopback(url) or any(each.matches(url) for each in self._exceptions):
            return ""
        return proxy if "://" in proxy else f"http://{proxy}"


def _exception(entry: str) -> _Exception:
    network = _network(entry)
    if network is not None:
        return _Exception(network, "", 0)
    host, colon, port = entry.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        host, port = entry, "0"
    return _Exception(_network(host), host.removeprefix("*") if host != "*" else host, int(port[:6]))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text.removeprefix("[").removesuffix("]"), strict=False)
    except ValueError:
        return None


def _is_in(host: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False
