from __future__ import annotations

import pytest

from lazylayer.api.settings import Settings
from lazylayer.errors import ConfigurationError
from lazylayer_cache_tiny import CacheTiny, TinyCache
from lazylayer_testing.cache import CacheConformance, MakeCache


class TestTinyCache(CacheConformance):
    """Everything that every cache must do."""

    @pytest.fixture
    def make_cache(self) -> MakeCache:
        return TinyCache  # the kit calls TinyCache(max_bytes=...)


@pytest.fixture
def plugin() -> CacheTiny:
    plugin = CacheTiny()
    plugin.lazylayer_configure(Settings(plugin={"cache_tiny": {"max_bytes": 1000}}))
    return plugin


def test_opens_a_cache_with_the_configured_limit(plugin: CacheTiny) -> None:
    cache = plugin.lazylayer_open_cache("cache_tiny", "chunks")
    assert cache is not None
    statistics = cache.statistics()
    assert statistics is not None
    assert statistics.limit == 1000


def test_keeps_purposes_apart(plugin: CacheTiny) -> None:
    chunks = plugin.lazylayer_open_cache("cache_tiny", "chunks")
    ranges = plugin.lazylayer_open_cache("cache_tiny", "ranges")
    assert chunks is not None
    assert ranges is not None
    chunks.put("key", b"value")
    assert ranges.get("key") is None


def test_is_silent_when_another_is_wanted(plugin: CacheTiny) -> None:
    assert plugin.lazylayer_open_cache("cache_dir", "chunks") is None


def test_unknown_option_is_an_error_that_names_it() -> None:
    settings = Settings(plugin={"cache_tiny": {"max_size": 1000}})
    with pytest.raises(ConfigurationError, match=r"plugin\.cache_tiny\.max_size"):
        CacheTiny().lazylayer_configure(settings)
