from __future__ import annotations

import pytest

from lazylayer.errors import ConfigurationError
from lazylayer_cache_tiny import CacheTiny, Options, TinyCache
from lazylayer_testing.cache import CacheConformance, MakeCache
from lazylayer_testing.configuring import configured


class TestTinyCache(CacheConformance):
    @pytest.fixture
    def make_cache(self) -> MakeCache:
        return TinyCache  # the kit calls TinyCache(max_bytes=...)


def test_limit_is_an_option() -> None:
    statistics = CacheTiny().lazylayer_open_cache("chunks", Options(max_bytes=1000)).statistics()
    assert statistics is not None
    assert statistics.limit == 1000


def test_purposes_are_kept_apart() -> None:
    plugin = CacheTiny()
    plugin.lazylayer_open_cache("chunks", Options()).put("key", b"value")
    assert plugin.lazylayer_open_cache("ranges", Options()).get("key") is None


def test_unknown_option_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigurationError, match=r"plugin\.cache_tiny\.max_size"):
        configured(CacheTiny(), "cache_tiny", {"max_size": 1000})
