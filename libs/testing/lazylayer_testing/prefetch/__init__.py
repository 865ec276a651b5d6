"""The conformance kit for prefetch policies: plans stay in the blob, errors do no harm, fetching ends.

Subclass `PrefetchConformance` in a test module of the plugin, and override one fixture::

    import pytest
    from lazylayer_testing.prefetch import PrefetchConformance

    class TestMyPolicy(PrefetchConformance):
        @pytest.fixture
        def policy(self):
            return MyPolicy(size=1 << 20)  # the plugin, configured

The kit opens images in memory through the engine, and asks the policy about layers, labels and image
configs that are ordinary, odd or hostile. It skips the checks of a hook that the policy does not have.
"""

from __future__ import annotations

from lazylayer_testing.prefetch.fetching import ImageChecks
from lazylayer_testing.prefetch.planning import PlanChecks

__all__ = ["ImageChecks", "PlanChecks", "PrefetchConformance"]


class PrefetchConformance(PlanChecks, ImageChecks):
    """The checks of every prefetch policy. Override `policy`."""
