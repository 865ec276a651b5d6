"""Which endpoints serve a registry: what `[resolver]` and containerd's hosts.toml say about it.

The first of these that names a registry is used: `[[resolver.hosts]]`, `[resolver.host."…"]`, a
directory of `resolver.config_path`, the entry `*` of `[[resolver.hosts]]`, and, where no `config_path` is
configured, containerd's own directories. Nothing else is: then the registry itself is asked, as its name says.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lazylayer.errors import ConfigurationError
from lazylayer_resolver_registry.endpoints import CAPABILITIES, Endpoint, origin_of
from lazylayer_resolver_registry.hostsfile import read_hosts
from lazylayer_resolver_registry.options import HostOptions, PlaceOptions, ResolverOptions, StargzHost, StargzMirror
from lazylayer_resolver_registry.places import place

__all__ = ["Hosts"]

_EVERY_OTHER = "*"
_USUAL_DIRECTORIES = ("/etc/containerd/certs.d", "/etc/docker/certs.d")
"""Where containerd 2 looks when its `config_path` is not configured."""


class Hosts:
    """The configured endpoints. Immutable but for the files, which are read whenever they are asked about."""

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
                self.endpoints(each.host)  # so that mistakes are told at start-up

    def endpoints(self, host: str) -> tuple[Endpoint, ...]:
        """The endpoints of a registry, `host` as in references: its mirrors in order, then the origin.

        Raises ConfigurationError, which names the table or file.
        """
        if host in self._hosts:
            return self._ours(self._hosts[host], host)
        if host in self._stargz:
            return self._from_stargz(self._stargz[host], host)
        found = self._from_directories(self._directories, host)
        if found is None and _EVERY_OTHER in self._hosts:
            found = self._ours(self._hosts[_EVERY_OTHER], host)
        if found is None:
            # Nobody asked for these: where we may not look there is nothing.
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

    def _ours(self, options: HostOptions, host: str) -> tuple[Endpoint, ...]:
        where = f'resolver.hosts, host "{options.host}"'
        plain = host in self._plain_http
        mirrors = [
            place(each.url, host, each, where, default=("pull", "resolve"), mirror=True) for each in options.mirrors
        ]
        return (*mirrors, place(options.server or host, host, options, where, default=CAPABILITIES, plain_http=plain))

    def _from_stargz(self, options: StargzHost, host: str) -> tuple[Endpoint, ...]:
        mirrors = [self._stargz_mirror(each, host) for each in options.mirrors]
        return (*mirrors, self._origin(host))

    def _stargz_mirror(self, mirror: StargzMirror, host: str) -> Endpoint:
        where = f'resolver.host."{host}".mirrors'
        if "/" in mirror.host:
            raise ConfigurationError(f"{where}: {mirror.host!r}: expected name[:port]", key="resolver.host")
        seconds = mirror.request_timeout_sec or self._stargz_timeout
        idle = None if seconds == 0 else max(float(seconds), 0.0)
        options = PlaceOptions(header=mirror.header, idle_timeout=idle)
        return place(
            mirror.host, host, options, where, default=("pull", "resolve"), mirror=True, plain_http=mirror.insecure
        )


def _paths(names: Iterable[str]) -> list[Path]:
    return [Path(each) for each in names if each]
