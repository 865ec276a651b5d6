"""The checks of images in the prefetch kit, run on an installed plugin by `lazylayer plugins check`."""

from __future__ import annotations

from pathlib import Path

import pytest

from lazylayer_testing.checks.plugin import CheckedPlugin
from lazylayer_testing.prefetch import ImageChecks


class TestPrefetch(ImageChecks):
    """The checks of `lazylayer_prefetch_image`."""

    @pytest.fixture
    def policy(self, checked_plugin: CheckedPlugin, tmp_path: Path) -> object:
        """The plugin, with the options that are configured."""
        return checked_plugin.plugin(tmp_path)
