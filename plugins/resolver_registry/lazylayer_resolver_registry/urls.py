"""Where a registry is, and where it may send us.

A registry tells its clients to go elsewhere: to a token server, by the realm of a challenge, and to a
blob storage, by a redirect. Neither may lead anywhere it likes. The rule: the scheme is `https`, or
`http` if the registry itself is spoken to in plain HTTP; and a registry that is not on this machine
cannot send us to this machine, nor to link-local addresses, where clouds keep their metadata, nor to
the other places that are known for metadata. An address counts in every spelling that the system's
resolver understands: `127.1` and `2130706433` are `127.0.0.1`.
"""

from __future__ import annotations

import ipaddress
import socket

import httpx

from lazylayer.api.oci import DEFAULT_REGISTRY
from lazylayer.errors import UnavailableError

__all__ = ["HUB", "authority", "base_url", "check_target", "is_loopback", "port_of", "same_origin", "shown"]

HUB = "registry-1.docker.io"
"""Where the images of docker.io are."""

_METADATA = frozenset(ipaddress.ip_address(each) for each in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200"))
"""Where Amazon, Google and Alibaba keep metadata besides 169.254.169.254."""
_METADATA_NAMES = frozenset({"metadata.google.internal"})
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 addresses as IPv6 ones (NAT64, RFC 6052)."""


def base_url(host: str, plain_http: bool) -> httpx.URL:
    """The root of the API of a registry, `host` as in references (`name[:port]`).

    Registries on this machine are spoken to in plain HTTP unless their port is 443, the default, as
    containerd and Docker do.
    """
    host = HUB if host == DEFAULT_REGISTRY else host
    https = httpx.URL(f"https://{host}")
    if plain_http or (is_loopback(https) and https.port is not None):
        return httpx.URL(f"http://{host}")
    return https


def authority(url: httpx.URL) -> str:
    """Host and port of `url` as references and keychains name them, an IPv6 address in brackets."""
    return url.netloc.decode("ascii").rpartition("@")[2]


def is_loopback(url: httpx.URL) -> bool:
    """Whether the host of `url` is this machine, going by its name alone."""
    name = _name(url)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(url)
    return address is not None and address.is_loopback


def check_target(target: httpx.URL, registry: httpx.URL, what: str) -> None:
    """Raises UnavailableError if `registry` may not send us to `target`; `what` says what sent us."""
    if not target.host:
        scheme = target.scheme or "nothing"
        raise UnavailableError(f"{registry.host}: {what} leads to {scheme} without a host, which is refused")
    if target.scheme != "https" and not (target.scheme == "http" and registry.scheme == "http"):
        raise UnavailableError(f"{registry.host}: {what} leads to {target.scheme or 'no'}://, which is refused")
    if not is_loopback(registry) and (is_loopback(target) or _is_private_to_machine(target)):
        raise UnavailableError(f"{registry.host}: {what} leads to {target.host}, a local address, which is refused")


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether both are the same scheme, host and port, so that credentials for one are for the other."""
    return (one.scheme, one.host, port_of(one)) == (other.scheme, other.host, port_of(other))


def port_of(url: httpx.URL) -> int:
    """The port that `url` leads to."""
    return url.port or (443 if url.scheme == "https" else 80)


def shown(url: httpx.URL) -> str:
    """A URL for messages: without the query, which holds signatures, and without a name and password."""
    return f"{url.scheme}://{url.netloc.decode('ascii', 'replace').rpartition('@')[2]}{url.path}"


def _name(url: httpx.URL) -> str:
    """The host of `url`, without the dot that makes a name absolute."""
    return url.host.removesuffix(".")


def _is_private_to_machine(url: httpx.URL) -> bool:
    """Whether the host means something else on each machine, as metadata of clouds do."""
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
    """An IPv4 address in one of the spellings of inet_aton(3), which getaddrinfo(3) takes for one too."""
    try:
        return ipaddress.IPv4Address(socket.inet_aton(name))
    except (OSError, ValueError):
        return None
