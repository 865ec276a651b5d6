"""The frontend kit, run on an installed plugin by `lazylayer plugins check`."""

from __future__ import annotations

from pathlib import Path

import pytest

from lazylayer.api.mounting import Missing, MountableTree, MountedTree, MountOptions
from lazylayer_testing.checks.plugin import CheckedPlugin
from lazylayer_testing.frontend import FrontendConformance, MountTree


class TestFrontend(FrontendConformance):
    """The checks of every frontend."""

    @pytest.fixture
    def mount_tree(self, checked_plugin: CheckedPlugin, tmp_path: Path) -> MountTree:
        """Mounts with the plugin, if it says that it works here."""
        frontend = checked_plugin.open(tmp_path).of(checked_plugin.name)
        found = frontend.probe_frontend()
        if isinstance(found, Missing):
            pytest.skip(str(found))

        def mount(tree: MountableTree, mountpoint: str) -> MountedTree:
            return frontend.mount_tree(tree, mountpoint, MountOptions())

        return mount
