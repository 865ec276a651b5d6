"""The conformance kit for layer formats: what every format must build, read and refuse, as tests.

Subclass `FormatConformance` in a test module of the plugin, and override one fixture::

    import pytest
    from lazylayer_testing.format import FormatConformance

    class TestMyFormat(FormatConformance):
        @pytest.fixture
        def plugin(self):
            return MyFormat()  # the plugin, configured

The kit builds layers of an odd archive, opens them, compares trees and contents with what the archive holds,
and opens thousands of layers that are damaged or lie. A format that only reads overrides `make_layer` too.
"""

from __future__ import annotations

from lazylayer_testing.format.building import BuildingChecks
from lazylayer_testing.format.damage import DamageChecks
from lazylayer_testing.format.describing import DescriptionChecks
from lazylayer_testing.format.layers import BuiltFormatLayer, FormatFixtures, MakeLayer
from lazylayer_testing.format.reading import ReadingChecks

__all__ = ["BuiltFormatLayer", "FormatConformance", "FormatFixtures", "MakeLayer"]


class FormatConformance(DescriptionChecks, BuildingChecks, ReadingChecks, DamageChecks):
    """The checks of every layer format. Override `plugin`."""
