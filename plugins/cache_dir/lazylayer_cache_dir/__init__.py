"""Cache chunks and ranges on disk: persistent, shared by processes, bounded, verified when read.

Both purposes share one directory and one limit; so do all processes that use the directory.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from lazylayer import hookimpl
from lazylayer.api.cache import Cache, CachePurpose
from lazylayer.api.settings import Settings
from lazylayer.api.units import PositiveSize
from lazylayer.errors import ConfigurationError
from lazylayer_cache_dir.directory import DirectoryCache, default_limit

__all__ = ["CacheDir", "DirectoryCache", "Options"]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.cache_dir]`."""

    directory: str = ""
    """An absolute path; by default `cache` in the root directory of the settings."""
    max_bytes: PositiveSize | None = None
    """Bytes on disk for chunks and ranges together; by default a tenth of the file system, at most 50 GiB."""


class CacheDir:
    """The plugin; it keeps where the cache is."""

    preference = 100
    scope_option = "directory"

    def __init__(self) -> None:
        self._directory = Path()

    @hookimpl
    def lazylayer_configure(self, settings: Settings, options: Options) -> None:
        """Choose the directory. Nothing is opened yet."""
        self._directory = Path(options.directory or Path(settings.root, "cache"))
        if not self._directory.is_absolute():
            key = "plugin.cache_dir.directory"
            raise ConfigurationError(f"{key}: {self._directory} is not an absolute path", key=key)

    @hookimpl
    def lazylayer_open_cache(self, purpose: CachePurpose, options: Options) -> Cache:
        """Open the part of the directory for `purpose`. Raises ConfigurationError if it is unusable."""
        try:
            max_bytes = options.max_bytes or default_limit(self._directory)
            return DirectoryCache(self._directory, purpose=purpose, max_bytes=max_bytes)
        except OSError as error:
            message = (
                f"{self._directory}: cannot be used as a cache: {error}; set plugin.cache_dir.directory to another"
            )
            raise ConfigurationError(message, key="plugin.cache_dir.directory") from error
