"""Registry addresses, and the check of addresses that a registry redirects to.

A registry may redirect its clients: to a token server, by the realm of a challenge, and to a blob
storage. Both targets are restricted. The scheme must be `https`, or `http` if the registry itself uses
plain HTTP. A registry on another machine must not name this machine, link-local addresses (cloud
metadata), or other known metadata addresses. All spellings that the system's resolver accepts are
covered: `127.1` and `2130706433` are `127.0.0.1`.
"""

from __future__ import annotations

import ipaddress
import socket

import httpx

from lazylayer.api.oci import DEFAULT_REGISTRY
from lazylayer.errors import UnavailableError

__all__ = ["HUB", "authority", "base_url", "check_target", "display_url", "is_loopback", "port_of", "same_origin"]

HUB = "registry-1.docker.io"
"""The host of docker.io's images."""

_METADATA = frozenset(ipaddress.ip_address(each) for each in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200"))
"""Metadata addresses of Amazon, Google and Alibaba besides 169.254.169.254."""
_METADATA_NAMES = frozenset({"metadata.google.internal"})
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 addresses as IPv6 ones (NAT64, RFC 6052)."""


def base_url(host: str, plain_http: bool) -> httpx.URL:
    """Return the root of a registry's API; `host` is its name in references (`name[:port]`).

    Registries on this machine use plain HTTP unless their port is 443, as in containerd and Docker.
    """
    host = HUB if host == DEFAULT_REGISTRY else host
    https = httpx.URL(f"https://{host}")
    if plain_http or (is_loopback(https) and https.port is not None):
        return httpx.URL(f"http://{host}")
    return https


def authority(url: httpx.URL) -> str:
    """Return host and port of `url` as in references, an IPv6 address in brackets."""
    return url.netloc.decode("ascii").rpartition("@")[2]


def is_loopback(url: httpx.URL) -> bool:
    """Return True if the host of `url` names this machine, without looking it up."""
    name = _name(url)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(url)
    return address is not None and address.is_loopback


def check_target(target: httpx.URL, registry: httpx.URL, what: str) -> None:
    """Raise UnavailableError if `registry` must not redirect to `target`; `what` names the redirect."""
    if not target.host:
        scheme = target.scheme or "nothing"
        raise UnavailableError(f"{registry.host}: {what} leads to {scheme} without a host; refused")
    if target.scheme != "https" and not (target.scheme == "http" and registry.scheme == "http"):
        raise UnavailableError(f"{registry.host}: {what} leads to {target.scheme or 'no'}://; refused")
    if not is_loopback(registry) and (is_loopback(target) or _is_private_to_machine(target)):
        raise UnavailableError(f"{registry.host}: {what} leads to {target.host}, a local address; refused")


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Return True if both have the same scheme, host and port, so that credentials for one fit the other."""
    return (one.scheme, one.host, port_of(one)) == (other.scheme, other.host, port_of(other))


def port_of(url: httpx.URL) -> int:
    """Return the port of `url`, by default that of its scheme."""
    return url.port or (443 if url.scheme == "https" else 80)


def display_url(url: httpx.URL) -> str:
    """Return a URL for messages, without its query (signatures), user and password."""
    return f"{url.scheme}://{url.netloc.decode('ascii', 'replace').rpartition('@')[2]}{url.path}"


def _name(url: httpx.URL) -> str:
    """Return the host of `url` without the trailing dot of an absolute name."""
    return url.host.removesuffix(".")


def _is_private_to_machine(url: httpx.URL) -> bool:
    """Return True if the host's meaning depends on the machine, as for cloud metadata."""
    if _name(url) in _METADATA_NAMES:
        return True
    address = _address(url)
    return address is not None and (address.is_link_local or address.is_unspecified or address in _METADATA)


def _address(url: httpx.URL) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    name = _name(url)
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return _short_address(name)
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


def _short_address(name: str) -> ipaddress.IPv4Address | None:
    """Parse an IPv4 address in any spelling of inet_aton(3), which getaddrinfo(3) accepts too."""
    try:
        return ipaddress.IPv4Address(socket.inet_aton(name))
    except (OSError, ValueError):
        return None
