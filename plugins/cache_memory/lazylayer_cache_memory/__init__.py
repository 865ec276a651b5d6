"""Cache chunks and ranges in RAM, bounded by bytes; the least recently used value is evicted first.

The values are lost when the process ends. Both purposes share one limit.
"""

from __future__ import annotations

import msgspec

from lazylayer import hookimpl
from lazylayer.api.cache import Cache, CachePurpose
from lazylayer.api.units import PositiveSize
from lazylayer_cache_memory.memory import MemoryCache, Section

__all__ = ["CacheMemory", "MemoryCache", "Options"]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.cache_memory]`."""

    max_bytes: PositiveSize = 256 * 1024 * 1024
    """Bytes of memory for chunks and ranges together."""


class CacheMemory:
    """The plugin: one store in memory, with a section for each purpose."""

    def __init__(self) -> None:
        self._store = MemoryCache(max_bytes=Options().max_bytes)

    @hookimpl
    def lazylayer_configure(self, options: Options) -> None:
        """Set the limit."""
        self._store = MemoryCache(max_bytes=options.max_bytes)

    @hookimpl
    def lazylayer_open_cache(self, purpose: CachePurpose) -> Cache:
        """Return the section of the store for `purpose`."""
        return Section(self._store, purpose)
