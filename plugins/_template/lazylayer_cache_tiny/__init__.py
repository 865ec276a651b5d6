"""A tiny cache for lazylayer: values in a dictionary; the least recently used is evicted first."""

from __future__ import annotations

import msgspec

from lazylayer import hookimpl
from lazylayer.api.cache import Cache, CachePurpose
from lazylayer.api.units import PositiveSize
from lazylayer_cache_tiny.tiny import TinyCache

__all__ = ["CacheTiny", "Options", "TinyCache"]


class Options(msgspec.Struct, frozen=True):
    """`[plugin.cache_tiny]`."""

    max_bytes: PositiveSize = 64 * 1024 * 1024
    """Bytes that the values of one purpose may take up."""


class CacheTiny:
    """The plugin: a cache for each purpose."""

    @hookimpl
    def lazylayer_open_cache(self, purpose: CachePurpose, options: Options) -> Cache:
        """Open a cache for `purpose`."""
        return TinyCache(purpose=purpose, max_bytes=options.max_bytes)
