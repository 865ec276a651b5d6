"""The conformance kit, run on the plugin."""

from __future__ import annotations

import pytest

import lazylayer_format_estargz
from lazylayer_testing.format import FormatConformance


class TestFormat(FormatConformance):
    """The checks of every layer format."""

    @pytest.fixture
    def plugin(self) -> object:
        """The plugin, a module."""
        return lazylayer_format_estargz
