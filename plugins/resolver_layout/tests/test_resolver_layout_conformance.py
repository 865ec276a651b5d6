"""The plugin does what every resolver must."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import lazylayer_resolver_layout
from lazylayer.api.oci import Reference, parse_reference
from lazylayer_testing.resolver import ResolverConformance, ResolverShelf


class Directories:
    plugin = lazylayer_resolver_layout

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, layout: Path, name: str) -> Reference:
        shutil.move(layout, self.root / "image")
        return parse_reference(f"oci:{self.root}/image:{name}")

    def damage(self, digest: str) -> bool:
        file = self.root / "image" / "blobs" / "sha256" / digest.partition(":")[2]
        file.write_bytes(file.read_bytes()[:-1] + b" ")
        return True

    def take_away(self) -> bool:
        return False  # an open file stays readable

    def new_reference(self) -> Reference:
        return parse_reference(f"oci:{self.root}/new:1")


class Archives(Directories):
    def put(self, layout: Path, name: str) -> Reference:
        archive = self.root / "image.tar"
        subprocess.run(["tar", "-cf", archive, "-C", layout, "."], check=True)
        return parse_reference(f"oci-archive:{archive}:{name}")

    def damage(self, digest: str) -> bool:
        return False

    def new_reference(self) -> Reference:
        return parse_reference(f"oci-archive:{self.root}/new.tar:1")


class TestDirectories(ResolverConformance):
    @pytest.fixture
    def shelf(self, tmp_path: Path) -> ResolverShelf:
        (tmp_path / "shelf").mkdir()
        return Directories(tmp_path / "shelf")


class TestArchives(ResolverConformance):
    @pytest.fixture
    def shelf(self, tmp_path: Path) -> ResolverShelf:
        (tmp_path / "shelf").mkdir()
        return Archives(tmp_path / "shelf")
