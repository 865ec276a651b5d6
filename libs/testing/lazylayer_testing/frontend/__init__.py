"""The conformance kit for frontends: what every frontend must show, as tests that its author runs.

Subclass `FrontendConformance` in a test module of the plugin, and override one fixture::

    import pytest
    from lazylayer_testing.frontend import FrontendConformance

    class TestMyFrontend(FrontendConformance):
        @pytest.fixture
        def mount_tree(self):
            return my_mount  # called as my_mount(tree, mountpoint), answers a MountedTree

The kit mounts trees that hold everything a layer may hold, looks at them with plain system calls,
and compares entry by entry. It needs root, and skips itself where it is run without.
"""

from __future__ import annotations

from lazylayer_testing.frontend.mounts import Mounts, MountTree
from lazylayer_testing.frontend.serving import ServingChecks
from lazylayer_testing.frontend.showing import ShowingChecks

__all__ = ["FrontendConformance", "MountTree", "Mounts"]


class FrontendConformance(ShowingChecks, ServingChecks):
    """The checks of every frontend. Override `mount_tree`; class variables say what yours cannot do."""
