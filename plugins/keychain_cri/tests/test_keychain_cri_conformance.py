from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from lazylayer.api.credentials import Credentials
from lazylayer.api.oci import Reference
from lazylayer.api.settings import Settings
from lazylayer_keychain_cri import CriKeychain, Options
from lazylayer_keychain_cri.remembered import Remembered, RememberedCredentials
from lazylayer_testing.keychain import KeychainConformance, KeychainStore


class Pulls:
    def __init__(self, root: Path) -> None:
        self.directory = root / "keychain_cri"
        self.plugin = CriKeychain()
        self.plugin.lazylayer_configure(Settings(root=str(root)), Options(listen="unused"))

    def put(self, logins: Mapping[str, Credentials]) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        store = RememberedCredentials(self.directory)
        for host, login in logins.items():
            reference = str(Reference(repository="team/app", host=host, tag="1"))
            store.put(Remembered(reference, login.username, login.password))

    def damage(self) -> bool:
        shutil.rmtree(self.directory)
        self.directory.write_text("not a directory")
        return True


class TestCriKeychain(KeychainConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> KeychainStore:
        return Pulls(tmp_path)
