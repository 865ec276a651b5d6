"""A tiny cache for lazylayer: values in a dictionary, the least recently used leaving first."""

from __future__ import annotations

from typing import Annotated

import msgspec

from lazylayer import hookimpl
from lazylayer.api.cache import Cache, CachePurpose
from lazylayer.api.settings import Settings
from lazylayer_cache_tiny.tiny import TinyCache

__all__ = ["CacheTiny", "Options", "TinyCache"]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.cache_tiny]`."""

    max_bytes: Annotated[int, msgspec.Meta(ge=1)] = 64 * 1024 * 1024
    """Bytes that the values of one purpose may take up."""


class CacheTiny:
    """The plugin: it keeps its options, and opens a cache when it is asked for one."""

    def __init__(self) -> None:
        self._options = Options()

    @hookimpl
    def lazylayer_configure(self, settings: Settings) -> None:
        """Takes the options. Nothing is opened yet."""
        self._options = settings.plugin_options("cache_tiny", Options)

    @hookimpl
    def lazylayer_open_cache(self, kind: str, purpose: CachePurpose) -> Cache | None:
        """A cache for `purpose`, if it is this plugin that is wanted."""
        if kind != "cache_tiny":
            return None
        return TinyCache(purpose=purpose, max_bytes=self._options.max_bytes)
