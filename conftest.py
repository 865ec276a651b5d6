"""Set up what every test here shares, those of the plugins too."""

from __future__ import annotations

import os
from typing import Any

import pytest
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

# The tests in here start containers under fixed names, so one process runs them all. It starts first.
_ONE_BY_ONE = "tests/e2e/"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Keep the tests of one file in one process, where processes share the tests."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class FileScheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return _ONE_BY_ONE if file.startswith(_ONE_BY_ONE) else file

    return FileScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that take longest first."""
    items.sort(key=lambda item: not item.nodeid.startswith(_ONE_BY_ONE))
