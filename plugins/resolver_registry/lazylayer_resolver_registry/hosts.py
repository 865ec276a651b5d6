"""Find the endpoints of a registry in `[resolver]` and in containerd's hosts.toml.

The first of these that names the registry wins: `[[resolver.hosts]]`, `[resolver.host."…"]`, a
directory of `resolver.config_path`, the entry `*` of `[[resolver.hosts]]`, and, without `config_path`,
containerd's own directories. Otherwise the registry's name is its address.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lazylayer.errors import ConfigurationError
from lazylayer_resolver_registry.endpointoptions import configured_endpoint
from lazylayer_resolver_registry.endpoints import CAPABILITIES, Endpoint, origin_of
from lazylayer_resolver_registry.hostsfile import read_hosts
from lazylayer_resolver_registry.options import EndpointOptions, HostOptions, ResolverOptions, StargzHost, StargzMirror

__all__ = ["Hosts"]

_EVERY_OTHER = "*"
_USUAL_DIRECTORIES = ("/etc/containerd/certs.d", "/etc/docker/certs.d")
"""The directories that containerd 2 reads if its `config_path` is not configured."""


class Hosts:
    """The configured endpoints. Immutable, except that hosts.toml files are read on each call."""

    def __init__(self, options: ResolverOptions, plain_http: Sequence[str] = ()) -> None:
        path = options.config_path
        self._directories = _paths(path.split(":") if isinstance(path, str) else path or ())
        self._usual_directories = _paths(_USUAL_DIRECTORIES if path is None else ())
        self._hosts = {each.host: each for each in options.hosts}
        self._stargz: Mapping[str, StargzHost] = options.host
        self._stargz_timeout = options.request_timeout_sec
        self._plain_http = frozenset(plain_http)
        for each in options.hosts:
            if each.host != _EVERY_OTHER:
                self.endpoints(each.host)  # report mistakes at start-up

    def endpoints(self, host: str) -> tuple[Endpoint, ...]:
        """Return the endpoints of a registry: its mirrors in order, then the registry itself.

        :param host: the registry's name in references. Raises ConfigurationError naming the table or file.
        """
        if host in self._hosts:
            return self._from_table(self._hosts[host], host)
        if host in self._stargz:
            return self._from_stargz(self._stargz[host], host)
        found = self._from_directories(self._directories, host)
        if found is None and _EVERY_OTHER in self._hosts:
            found = self._from_table(self._hosts[_EVERY_OTHER], host)
        if found is None:
            # The defaults were not configured by anyone, so an unreadable one is not an error.
            readable = [each for each in self._usual_directories if os.access(each, os.R_OK | os.X_OK)]
            found = self._from_directories(readable, host)
        return found or (self._origin(host),)

    def _from_directories(self, directories: Sequence[Path], host: str) -> tuple[Endpoint, ...] | None:
        for directory in directories:
            found = read_hosts(directory, host, host in self._plain_http)
            if found is not None:
                return found
        return None

    def _origin(self, host: str) -> Endpoint:
        return origin_of(host, host in self._plain_http)

    def _from_table(self, options: HostOptions, host: str) -> tuple[Endpoint, ...]:
        where = f'resolver.hosts, host "{options.host}"'
        plain = host in self._plain_http
        mirrors = [
            configured_endpoint(each.url, host, each, where, default=("pull", "resolve"), mirror=True)
            for each in options.mirrors
        ]
        return (
            *mirrors,
            configured_endpoint(options.server or host, host, options, where, default=CAPABILITIES, plain_http=plain),
        )

    def _from_stargz(self, options: StargzHost, host: str) -> tuple[Endpoint, ...]:
        mirrors = [self._stargz_mirror(each, host) for each in options.mirrors]
        return (*mirrors, self._origin(host))

    def _stargz_mirror(self, mirror: StargzMirror, host: str) -> Endpoint:
        where = f'resolver.host."{host}".mirrors'
        if "/" in mirror.host:
            raise ConfigurationError(f"{where}: {mirror.host!r}: expected name[:port]", key="resolver.host")
        seconds = mirror.request_timeout_sec or self._stargz_timeout
        idle = None if seconds == 0 else max(float(seconds), 0.0)
        options = EndpointOptions(header=mirror.header, idle_timeout=idle)
        return configured_endpoint(
            mirror.host, host, options, where, default=("pull", "resolve"), mirror=True, plain_http=mirror.insecure
        )


def _paths(names: Iterable[str]) -> list[Path]:
    return [Path(each) for each in names if each]
