"""Options: the tables `[plugin.resolver_registry]`, and `[resolver]` with the registry hosts."""

from __future__ import annotations

from typing import Annotated

import msgspec

from lazylayer.api.units import Duration, PositiveDuration

__all__ = ["NAME", "EndpointOptions", "HostOptions", "Options", "ResolverOptions", "StargzHost", "StargzMirror"]

NAME = "resolver_registry"

Headers = dict[str, str | list[str]]
Files = str | list[str]


class EndpointOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Connection settings of one registry or mirror, named as in containerd's hosts.toml."""

    capabilities: list[str] | None = None
    ca: Files | None = None
    client: str | list[str | list[str]] | None = None
    skip_verify: bool = False
    header: Headers = {}
    override_path: bool = False
    dial_timeout: PositiveDuration | None = None
    idle_timeout: Duration | None = None
    proxy: str = ""


class MirrorOptions(EndpointOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of `[[resolver.hosts.mirrors]]`."""

    url: str


class HostOptions(EndpointOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of `[[resolver.hosts]]`: a registry and its mirrors."""

    host: str
    """The registry's name in references, `name[:port]`; `*` for every registry without other settings."""
    server: str = ""
    """The registry's address; by default `host`."""
    mirrors: list[MirrorOptions] = []


class StargzMirror(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of `[[resolver.host."…".mirrors]]`, as in stargz-snapshotter."""

    host: str
    insecure: bool = False
    request_timeout_sec: int = 0
    header: Headers = {}


class StargzHost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table `[resolver.host."…"]`."""

    mirrors: list[StargzMirror] = []


class ResolverOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[resolver]`: registries and their mirrors."""

    config_path: str | list[str] | None = None
    """Directories with containerd's `HOST/hosts.toml`, in order; a string is split at colons.

    None for containerd 2's default directories, if they exist and are readable.
    """
    hosts: list[HostOptions] = []
    host: dict[str, StargzHost] = {}
    request_timeout_sec: int = 0
    """Accepted from stargz-snapshotter: seconds without a byte; 0 for the default, negative for no limit."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.resolver_registry]`."""

    connect_timeout: PositiveDuration = 10.0
    """Seconds to establish a connection."""
    idle_timeout: PositiveDuration = 30.0
    """Seconds in which a response must bring at least 1 KiB, or end; otherwise it is abandoned."""
    attempts: Annotated[int, msgspec.Meta(ge=1)] = 5
    """Attempts at a request that fails temporarily, without progress in between."""
    mirror_attempts: Annotated[int, msgspec.Meta(ge=1)] = 2
    """Attempts at a mirror before the next one is tried."""
    mirror_rest: Duration = 30.0
    """Seconds to skip a mirror after a failure."""
    connections: Annotated[int, msgspec.Meta(ge=1)] = 64
    """Requests in flight per host; further ones wait up to `idle_timeout`."""
    multi_range: bool = True
    """Request several ranges at once; hosts that do not support it are detected."""
    resolver: ResolverOptions = ResolverOptions()
    """The table `[resolver]`: where registries and their mirrors are."""
