from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from acme_resolver_zip import ResolverZip

from lazylayer.api.oci import Reference
from lazylayer.errors import SkipPlugin
from lazylayer_testing.configuring import configured
from lazylayer_testing.resolver import ResolverConformance, ResolverShelf


class ZipFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.plugin = configured(ResolverZip(), "resolver_zip", {"file": str(path)})
        self.members: dict[str, bytes] = {"index.json": b'{"schemaVersion": 2, "manifests": []}'}
        self._write()

    def _write(self) -> None:
        with zipfile.ZipFile(self.path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in self.members.items():
                archive.writestr(name, data)

    def put(self, layout: Path, name: str) -> Reference:
        index = json.loads(self.members["index.json"])
        for file in layout.rglob("*"):
            if file.is_file():
                self.members[file.relative_to(layout).as_posix()] = file.read_bytes()
        index["manifests"] += json.loads(self.members["index.json"])["manifests"]
        self.members["index.json"] = json.dumps(index).encode()
        self._write()
        return Reference(name, scheme="zip")

    def damage(self, digest: str) -> bool:
        name = f"blobs/{digest.replace(':', '/')}"
        self.members[name] = self.members[name][:-1] + bytes([self.members[name][-1] ^ 1])
        self._write()
        return True

    def take_away(self) -> bool:
        self.path.unlink()
        return True

    def new_reference(self) -> Reference | None:
        return None


class TestResolverZip(ResolverConformance):
    @pytest.fixture
    def shelf(self, tmp_path: Path) -> ResolverShelf:
        return ZipFile(tmp_path / "images.zip")


def test_is_skipped_without_a_file() -> None:
    with pytest.raises(SkipPlugin, match="set file to use it"):
        configured(ResolverZip(), "resolver_zip")
