"""The EROFS frontend does what every frontend must do."""

from __future__ import annotations

from functools import partial

import pytest

from lazylayer_frontend_erofs import Options
from lazylayer_frontend_erofs.mount import mount_tree
from lazylayer_frontend_erofs.probe import what_is_missing
from lazylayer_testing.frontend import FrontendConformance, MountTree

pytestmark = pytest.mark.fuse


@pytest.fixture(scope="module", autouse=True)
def where_it_works() -> None:
    if missing := what_is_missing():
        pytest.skip(str(missing))


class TestFrontendErofs(FrontendConformance):
    shows_virtual = False

    @pytest.fixture
    def mount_tree(self) -> MountTree:
        return partial(mount_tree, own=Options())
