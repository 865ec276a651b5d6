"""The policy passes the kit for prefetch policies."""

from __future__ import annotations

import pytest

from lazylayer_prefetch_entrypoint import PrefetchEntrypoint
from lazylayer_testing.prefetch import PrefetchConformance


class TestPrefetchEntrypoint(PrefetchConformance):
    @pytest.fixture
    def policy(self) -> PrefetchEntrypoint:
        return PrefetchEntrypoint()
