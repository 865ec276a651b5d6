from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from lazylayer_cache_dir import DirectoryCache
from lazylayer_testing.cache import MakeCache, PersistentCacheConformance


class TestDirectoryCache(PersistentCacheConformance):
    @pytest.fixture
    def make_cache(self, tmp_path: Path) -> MakeCache:
        return partial(DirectoryCache, tmp_path / "cache")

    @pytest.fixture
    def stored_in(self, tmp_path: Path) -> Path:
        return tmp_path / "cache"


class TestRanges(PersistentCacheConformance):
    @pytest.fixture
    def make_cache(self, tmp_path: Path) -> MakeCache:
        return partial(DirectoryCache, tmp_path / "cache", purpose="ranges")

    @pytest.fixture
    def stored_in(self, tmp_path: Path) -> Path:
        return tmp_path / "cache"
