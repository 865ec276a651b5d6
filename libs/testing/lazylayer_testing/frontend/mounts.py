"""The base of the frontend kit: the fixture to override, and mounts that are removed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lazylayer.api.mounting import MountableTree, MountedTree
from lazylayer_testing.frontend.trees import SampleTree, odd_tree

__all__ = ["FrontendFixtures", "MountTree", "Mounts"]

MountTree = Callable[[MountableTree, str], MountedTree]
"""Mounts a tree at a directory with the frontend under test, visible to all users."""


class Mounts:
    """The mounts of one check, each at a new directory; those left are removed at its end."""

    def __init__(self, mount_tree: MountTree) -> None:
        self._mount_tree = mount_tree
        # Not pytest's tmp_path: other users must get there.
        self._directory = tempfile.mkdtemp(prefix="lazylayer-frontend-")
        Path(self._directory).chmod(0o755)
        self._mounted: list[MountedTree] = []

    def directory(self) -> str:
        """Make an empty directory that all users may enter."""
        directory = tempfile.mkdtemp(dir=self._directory)
        Path(directory).chmod(0o755)
        return directory

    def mount(self, tree: MountableTree, mountpoint: str | None = None) -> MountedTree:
        """Mount `tree`, at a new directory unless one is given."""
        mounted = self._mount_tree(tree, mountpoint or self.directory())
        self._mounted.append(mounted)
        return mounted

    def close(self) -> None:
        """Unmount what is left and remove the directories."""
        for mounted in self._mounted:
            mounted.unmount(force=True)
        shutil.rmtree(self._directory)


class FrontendFixtures:
    """The fixtures of the kit."""

    @pytest.fixture
    def mount_tree(self) -> MountTree:
        """To be overridden: returns what mounts a tree."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture mount_tree")

    @pytest.fixture
    def mounts(self, mount_tree: MountTree) -> Iterator[Mounts]:
        """Mounts trees and unmounts them at the end."""
        if os.geteuid() != 0:
            pytest.skip("needs root: owners, devices and mounts")
        mounts = Mounts(mount_tree)
        yield mounts
        mounts.close()

    @pytest.fixture
    def odd(self, mounts: Mounts) -> tuple[SampleTree, str]:
        """The odd tree, mounted, and where."""
        tree = odd_tree()
        return tree, mounts.mount(tree).mountpoint
