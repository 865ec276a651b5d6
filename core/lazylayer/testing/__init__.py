"""What authors of plugins test their plugins with: conformance kits and scripted servers.

Needs the extra `lazylayer[testing]`. Import the modules by name: `lazylayer.testing.cache`, …
"""

from __future__ import annotations

import pytest

# Without this the checks of a kit would fail with a bare AssertionError and no values.
pytest.register_assert_rewrite(
    "lazylayer.testing.cache_model",
    "lazylayer.testing.cache_persistence",
    "lazylayer.testing.cache_values",
    "lazylayer.testing.frontend_serving",
    "lazylayer.testing.frontend_showing",
    "lazylayer.testing.keychain",
    "lazylayer.testing.resolver",
)
