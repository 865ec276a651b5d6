from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from acme_keychain_toml import KeychainToml

from lazylayer.api.credentials import Credentials
from lazylayer.errors import SkipPlugin
from lazylayer_testing.configuring import configured
from lazylayer_testing.keychain import KeychainConformance, KeychainStore


class LoginFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.plugin = configured(KeychainToml(), "keychain_toml", {"file": str(path)})

    def put(self, logins: Mapping[str, Credentials]) -> None:
        tables = [
            f"[{json.dumps(host)}]\nusername = {json.dumps(each.username)}\npassword = {json.dumps(each.password)}\n"
            for host, each in logins.items()
        ]
        self.path.write_text("".join(tables))

    def damage(self) -> bool:
        self.path.write_text("[")
        return True


class TestKeychainToml(KeychainConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> KeychainStore:
        return LoginFile(tmp_path / "logins.toml")


def test_is_skipped_without_a_file() -> None:
    with pytest.raises(SkipPlugin, match="set file to use it"):
        configured(KeychainToml(), "keychain_toml")
