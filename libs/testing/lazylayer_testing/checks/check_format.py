"""The format kit, run on an installed plugin by `lazylayer plugins check`."""

from __future__ import annotations

from pathlib import Path

import pytest

from lazylayer_testing.checks.plugin import CheckedPlugin
from lazylayer_testing.format import FormatConformance


class TestFormat(FormatConformance):
    """The checks of every layer format."""

    @pytest.fixture
    def plugin(self, checked_plugin: CheckedPlugin, tmp_path: Path) -> object:
        """The plugin, with the options that are configured."""
        return checked_plugin.plugin(tmp_path)
