from __future__ import annotations

import pytest

from lazylayer.api.cache import Cache
from lazylayer.errors import ConfigurationError
from lazylayer_cache_memory import CacheMemory, MemoryCache, Options
from lazylayer_testing.cache import CacheConformance, MakeCache
from lazylayer_testing.configuring import configured


def open_section(*, max_bytes: int, purpose: str = "chunks") -> Cache:
    plugin = CacheMemory()
    plugin.lazylayer_configure(Options(max_bytes=max_bytes))
    return plugin.lazylayer_open_cache("chunks" if purpose == "chunks" else "ranges")


class TestMemoryCache(CacheConformance):
    @pytest.fixture
    def make_cache(self) -> MakeCache:
        return MemoryCache


class TestSection(CacheConformance):
    @pytest.fixture
    def make_cache(self) -> MakeCache:
        return open_section


@pytest.fixture
def plugin() -> CacheMemory:
    plugin = CacheMemory()
    plugin.lazylayer_configure(Options(max_bytes=100_000))
    return plugin


def test_purposes_are_kept_apart_and_share_the_limit(plugin: CacheMemory) -> None:
    chunks = plugin.lazylayer_open_cache("chunks")
    ranges = plugin.lazylayer_open_cache("ranges")
    chunks.put("key", b"chunk")
    ranges.put("key", b"range")
    assert (chunks.get("key"), ranges.get("key")) == (b"chunk", b"range")
    ranges.put("large", bytes(99_500))
    assert chunks.get("key") is None
    assert chunks.statistics() == ranges.statistics()


def test_closing_a_section_forgets_only_that(plugin: CacheMemory) -> None:
    chunks = plugin.lazylayer_open_cache("chunks")
    ranges = plugin.lazylayer_open_cache("ranges")
    chunks.put("key", b"chunk")
    ranges.put("key", b"range")
    chunks.close()
    assert (chunks.get("key"), ranges.get("key")) == (None, b"range")


def test_what_is_kept_cannot_be_changed_from_outside() -> None:
    cache = MemoryCache(max_bytes=1000)
    data = bytearray(b"value")
    cache.put("key", data)  # type: ignore[arg-type]  # a bytearray: a core with a mistake in it
    data[0] = 0
    assert cache.get("key") == b"value"


@pytest.mark.parametrize("table", [{"max_bytes": 0}, {"max_bytes": "1"}, {"max_byte": 1}])
def test_bad_options_are_errors_that_name_the_key(table: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"plugin\.cache_memory"):
        configured(CacheMemory(), "cache_memory", table)
