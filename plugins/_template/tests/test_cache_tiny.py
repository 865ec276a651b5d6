from __future__ import annotations

import pytest

from lazylayer.errors import ConfigurationError
from lazylayer_cache_tiny import CacheTiny, Options, TinyCache
from lazylayer_testing.cache import CacheConformance, MakeCache
from lazylayer_testing.configuring import configured


class TestTinyCache(CacheConformance):
    """Everything that every cache must do."""

    @pytest.fixture
    def make_cache(self) -> MakeCache:
        return TinyCache  # the kit calls TinyCache(max_bytes=...)


def test_opens_a_cache_with_the_configured_limit() -> None:
    statistics = CacheTiny().lazylayer_open_cache("chunks", Options(max_bytes=1000)).statistics()
    assert statistics is not None
    assert statistics.limit == 1000


def test_keeps_purposes_apart() -> None:
    plugin = CacheTiny()
    chunks = plugin.lazylayer_open_cache("chunks", Options())
    ranges = plugin.lazylayer_open_cache("ranges", Options())
    chunks.put("key", b"value")
    assert ranges.get("key") is None


def test_unknown_option_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigurationError, match=r"plugin\.cache_tiny\.max_size"):
        configured(CacheTiny(), "cache_tiny", {"max_size": 1000})
