"""What every test here shares, those of the plugins too: how hypothesis looks for counterexamples."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No clock decides a test: a busy machine is no failure. Continuous integration draws the same examples
# each time, so that it fails for what was changed; everybody else's runs keep searching.
settings.register_profile(
    "lazylayer",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("lazylayer")

# It is not installed here. tests/integration/test_third_party_cache.py builds it and runs its tests.
collect_ignore = ["plugins/_template"]
