"""The conformance kit for caches: values, open values, limits, threads, processes, crashes and damage.

Subclass `CacheConformance`, or `PersistentCacheConformance` for a cache whose values outlive the
process, in a test module of the plugin, and override one fixture::

    from functools import partial

    import pytest
    from lazylayer_testing.cache import CacheConformance

    class TestMyCache(CacheConformance):
        @pytest.fixture
        def make_cache(self):
            return MyCache  # called as MyCache(max_bytes=1048576)

The kit counts sizes in bytes of values. A cache may count up to `OVERHEAD` bytes more for each.
Override the fixture `limited` for a cache that takes no limit: the checks of the limit are skipped.

`lazylayer plugins check` runs the kit in a scope of its own. A plugin with options other than
`max_bytes` says by a class attribute which option sets a store apart: `scope_option = "prefix"`, or
`scope_option = ""` if all that it keeps is in memory or below `Settings.root`. The kit sets that option
to an absolute path that nothing else uses.
"""

from __future__ import annotations

from lazylayer_testing.cache.persistence import PersistentCacheConformance
from lazylayer_testing.cache.values import LIMIT, OVERHEAD, VALUE_SIZE, CacheConformance, MakeCache

__all__ = ["LIMIT", "OVERHEAD", "VALUE_SIZE", "CacheConformance", "MakeCache", "PersistentCacheConformance"]
