"""Test kits for authors of plugins: `pip install lazylayer-testing`, or the extra `lazylayer[testing]`.

A package for each kind of plugin holds the checks that every plugin of the kind must pass: `cache`, `format`,
`frontend`, `keychain`, `prefetch`, `resolver`. `registry` is a scripted registry that fails as it is told, `servers`
runs real ones, `synthetic` makes layers and images in memory, `facts` compares trees, `needs` skips tests. Import
them by name.
"""

from __future__ import annotations

import pytest

# Without this the checks of a kit would fail with a bare AssertionError and no values.
pytest.register_assert_rewrite(
    "lazylayer_testing.cache.model",
    "lazylayer_testing.cache.persistence",
    "lazylayer_testing.cache.values",
    "lazylayer_testing.format.building",
    "lazylayer_testing.format.damage",
    "lazylayer_testing.format.describing",
    "lazylayer_testing.format.layers",
    "lazylayer_testing.format.reading",
    "lazylayer_testing.frontend.serving",
    "lazylayer_testing.frontend.showing",
    "lazylayer_testing.keychain",
    "lazylayer_testing.prefetch.asking",
    "lazylayer_testing.prefetch.fetching",
    "lazylayer_testing.prefetch.planning",
    "lazylayer_testing.resolver",
    "lazylayer_testing.synthetic.images",
)
