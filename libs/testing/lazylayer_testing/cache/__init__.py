"""The conformance kit for caches: what every cache must do, as tests that a plugin's author runs.

Subclass `CacheConformance`, or `PersistentCacheConformance` for a cache whose values outlive the
process, in a test module of the plugin, and override one fixture::

    from functools import partial

    import pytest
    from lazylayer_testing.cache import CacheConformance

    class TestMyCache(CacheConformance):
        @pytest.fixture
        def make_cache(self):
            return MyCache  # called as MyCache(max_bytes=1048576)

The kit counts sizes in bytes of values. A cache may reckon up to `OVERHEAD` bytes more for each.
Checks take no longer when a cache is slow, but the whole kit does: a second or two is usual.
"""

from __future__ import annotations

from lazylayer_testing.cache.persistence import PersistentCacheConformance
from lazylayer_testing.cache.values import LIMIT, OVERHEAD, CacheConformance, MakeCache

__all__ = ["LIMIT", "OVERHEAD", "CacheConformance", "MakeCache", "PersistentCacheConformance"]
