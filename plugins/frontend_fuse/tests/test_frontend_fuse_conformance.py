"""The FUSE frontend does what every frontend must do."""

from __future__ import annotations

from functools import partial

import pytest

from lazylayer.mounting import MountOptions
from lazylayer.testing.frontend import FrontendConformance, MountTree
from lazylayer_frontend_fuse import NAME, Options
from lazylayer_frontend_fuse.session import mount_tree

pytestmark = pytest.mark.fuse


class TestFrontendFuse(FrontendConformance):
    shows_virtual = True

    @pytest.fixture
    def mount_tree(self) -> MountTree:
        return partial(mount_tree, options=MountOptions(NAME), own=Options())
