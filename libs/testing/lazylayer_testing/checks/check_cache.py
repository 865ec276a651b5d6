"""The cache kit, run on an installed plugin by `lazylayer plugins check`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from lazylayer.api.cache import Cache
from lazylayer_testing.cache import MakeCache, PersistentCacheConformance
from lazylayer_testing.checks.plugin import CheckedPlugin


def open_cache(plugin: CheckedPlugin, root: Path, *, max_bytes: int) -> Cache:
    """The plugin's cache for chunks, of a new program below `root`; it must take the option `max_bytes`."""
    return plugin.open(root, max_bytes=max_bytes).of(plugin.name).open_cache("chunks")


def is_persistent(plugin: CheckedPlugin, root: Path) -> bool:
    """Whether what one program puts is found by the next one."""
    for attempt in range(2):
        cache = open_cache(plugin, root, max_bytes=1024 * 1024)
        found = cache.get("probe") is not None
        cache.put("probe", b"value")
        cache.close()
        if found and attempt:
            return True
    return False


class TestCache(PersistentCacheConformance):
    """What every cache must do; and a persistent one more, which others need not."""

    @pytest.fixture
    def make_cache(self, request: pytest.FixtureRequest, checked_plugin: CheckedPlugin, tmp_path: Path) -> MakeCache:
        """Opens the plugin's cache, each time by a new program."""
        only_persistent = request.function.__name__ in vars(PersistentCacheConformance)
        if only_persistent and not is_persistent(checked_plugin, tmp_path / "probe"):
            pytest.skip("the cache does not outlive its process")
        return partial(open_cache, checked_plugin, tmp_path)

    @pytest.fixture
    def stored_in(self, tmp_path: Path) -> Path:
        """Where the plugin may have put its files."""
        return tmp_path / "root"
