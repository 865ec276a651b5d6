"""The FUSE frontend does what every frontend must do."""

from __future__ import annotations

from functools import partial

import pytest

from lazylayer.api.mounting import MountOptions
from lazylayer_frontend_fuse import Options
from lazylayer_frontend_fuse.session import mount_tree
from lazylayer_testing.frontend import FrontendConformance, MountTree

pytestmark = pytest.mark.fuse


class TestFrontendFuse(FrontendConformance):
    shows_virtual = True

    @pytest.fixture
    def mount_tree(self) -> MountTree:
        return partial(mount_tree, options=MountOptions(), own=Options())
