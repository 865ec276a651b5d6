"""A workload is recorded with a frontend that can tell which files are read, whatever its name."""

from __future__ import annotations

from typing import Any

import pytest

from lazylayer import hookimpl
from lazylayer.api.mounting import MountableTree, MountedTree, MountOptions
from lazylayer.api.settings import MountSettings
from lazylayer.errors import MountError
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.registry import make_manager
from lazylayer_testing.synthetic import RecordedMount
from lazylayer_tool_images.recording import mount_separately

MOUNT: Any = object()


class Frontend:
    """A frontend that reads ahead across files, or not."""

    def __init__(self, name: str, *, separate: bool) -> None:
        self.name = name
        self.separate = separate

    @hookimpl
    def lazylayer_mount_tree(self, tree: MountableTree, mountpoint: str, mount_options: MountOptions) -> MountedTree:
        if mount_options.separate_files and not self.separate:
            raise MountError(f"{self.name} reads ahead")
        mounted = RecordedMount(tree, mountpoint)
        mounted.frontend = self.name
        return mounted


def hooks_of(*frontends: Frontend) -> Hooks:
    manager = make_manager()
    for frontend in frontends:
        manager.register(frontend, frontend.name)
    return Hooks(manager)


AHEAD, APART, OTHER = Frontend("ahead", separate=False), Frontend("apart", separate=True), Frontend("o", separate=True)


@pytest.mark.parametrize(
    ("settings", "chosen"),
    [
        (MountSettings(prefer=("ahead", "apart", "o")), "apart"),
        (MountSettings(frontend="o", prefer=("apart",)), "o"),
        (MountSettings(frontend="ahead", prefer=("missing", "apart")), "apart"),
    ],
)
def test_frontend_is_chosen_by_what_it_can_do(settings: MountSettings, chosen: str) -> None:
    assert mount_separately(hooks_of(AHEAD, APART, OTHER), settings, MOUNT, "/mnt").frontend == chosen


def test_every_reason_is_told_where_no_frontend_can() -> None:
    with pytest.raises(MountError, match=r"ahead reads ahead.*missing"):
        mount_separately(hooks_of(AHEAD), MountSettings(prefer=("ahead", "missing")), MOUNT, "/mnt")
