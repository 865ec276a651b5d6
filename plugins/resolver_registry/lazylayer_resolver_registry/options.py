"""The options of this plugin, `[plugin.resolver_registry]`, and the table of registry hosts, `[resolver]`."""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = ["NAME", "HostOptions", "Options", "PlaceOptions", "ResolverOptions", "StargzHost", "StargzMirror"]

NAME = "resolver_registry"

_Seconds = Annotated[float, msgspec.Meta(gt=0)]
Headers = dict[str, str | list[str]]
Files = str | list[str]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How registries are spoken to."""

    connect_timeout: _Seconds = 10.0
    """Seconds until a connection must stand."""
    idle_timeout: _Seconds = 30.0
    """Seconds without a byte after which an answer is given up; one that keeps flowing is never cut."""
    attempts: Annotated[int, msgspec.Meta(ge=1)] = 5
    """How often a request is made that fails for reasons that may pass, without any progress in between."""
    mirror_attempts: Annotated[int, msgspec.Meta(ge=1)] = 2
    """The same towards a mirror, before it is passed over."""
    mirror_rest: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    """Seconds for which a mirror that failed is passed over."""
    connections: Annotated[int, msgspec.Meta(ge=1)] = 64
    """How many connections are open at the same time, to all hosts with the same options together."""
    multi_range: bool = True
    """Whether several ranges may be asked for in one request; hosts that cannot are noticed anyway."""


class PlaceOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one place, a registry or a mirror, is reached; the names are those of containerd's hosts.toml."""

    capabilities: list[str] | None = None
    ca: Files | None = None
    client: str | list[str | list[str]] | None = None
    skip_verify: bool = False
    header: Headers = {}
    override_path: bool = False
    dial_timeout: str | _Seconds | None = None
    idle_timeout: Annotated[float, msgspec.Meta(ge=0)] | None = None
    proxy: str = ""


class MirrorOptions(PlaceOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of `[[resolver.hosts.mirrors]]`."""

    url: str


class HostOptions(PlaceOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of `[[resolver.hosts]]`: a registry and its mirrors."""

    host: str
    """As in references, `name[:port]`; `*` for every registry that nothing else is said of."""
    server: str = ""
    """The registry itself; by default what `host` says."""
    mirrors: list[MirrorOptions] = []


class StargzMirror(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of `[[resolver.host."…".mirrors]]`, as stargz-snapshotter has them."""

    host: str
    insecure: bool = False
    request_timeout_sec: int = 0
    header: Headers = {}


class StargzHost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table `[resolver.host."…"]`."""

    mirrors: list[StargzMirror] = []


class ResolverOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[resolver]`: where registries and their mirrors are."""

    config_path: str | list[str] | None = None
    """Directories with containerd's `HOST/hosts.toml`, the first one first; a text is divided at colons.

    None for those that containerd 2 looks into by default, as far as they are there and can be read.
    """
    hosts: list[HostOptions] = []
    host: dict[str, StargzHost] = {}
    request_timeout_sec: int = 0
    """Accepted from stargz-snapshotter: seconds without a byte; 0 for the default, less for no limit."""
