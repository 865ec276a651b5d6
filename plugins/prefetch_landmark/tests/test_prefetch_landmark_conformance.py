"""The policy passes the kit for prefetch policies."""

from __future__ import annotations

import pytest

from lazylayer.api.settings import PrefetchSettings, Settings
from lazylayer_prefetch_landmark import PrefetchLandmark
from lazylayer_testing.prefetch import PrefetchConformance


class TestPrefetchLandmark(PrefetchConformance):
    @pytest.fixture(params=[0, 700, 1 << 40])
    def policy(self, request: pytest.FixtureRequest) -> PrefetchLandmark:
        plugin = PrefetchLandmark()
        plugin.lazylayer_configure(Settings(prefetch=PrefetchSettings(size=request.param)))
        return plugin
