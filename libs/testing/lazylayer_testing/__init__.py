"""What authors of plugins test their plugins with: conformance kits and scripted servers.

Needs the extra `lazylayer[testing]`. Import the modules by name: `lazylayer_testing.cache`, …
"""

from __future__ import annotations

import pytest

# Without this the checks of a kit would fail with a bare AssertionError and no values.
pytest.register_assert_rewrite(
    "lazylayer_testing.cache.model",
    "lazylayer_testing.cache.persistence",
    "lazylayer_testing.cache.values",
    "lazylayer_testing.frontend.serving",
    "lazylayer_testing.frontend.showing",
    "lazylayer_testing.keychain",
    "lazylayer_testing.resolver",
)
