from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from lazylayer.api.credentials import Credentials
from lazylayer_keychain_docker import DockerKeychain, Options
from lazylayer_testing.keychain import KeychainConformance, KeychainStore


class ConfigFile:
    def __init__(self, directory: Path) -> None:
        self.path = directory / "config.json"
        self.path.write_text("{}")
        self.plugin = DockerKeychain()
        self.plugin.lazylayer_configure(Options(config=str(self.path)))

    def put(self, logins: Mapping[str, Credentials]) -> None:
        auths = {
            host: {"auth": base64.b64encode(f"{login.username}:{login.password}".encode()).decode()}
            for host, login in logins.items()
        }
        self.path.write_text(json.dumps({"auths": auths}))

    def damage(self) -> bool:
        self.path.write_text(self.path.read_text()[:-2])
        return True


class HelperProgram(ConfigFile):
    """A credential helper that looks into a directory of answers."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(directory)
        self.answers = directory / "answers"
        self.answers.mkdir()
        self.program = directory / "docker-credential-directory"
        self.program.write_text(
            "#!/bin/sh\nread server\n"
            f'cat "{self.answers}/$(echo "$server" | tr / _)" 2>/dev/null && exit\n'
            "echo credentials not found in native keychain; exit 1\n"
        )
        self.program.chmod(0o755)
        self.path.write_text('{"credsStore": "directory"}')
        monkeypatch.setenv("PATH", str(directory), prepend=":")

    def put(self, logins: Mapping[str, Credentials]) -> None:
        for file in self.answers.iterdir():
            file.unlink()
        for host, login in logins.items():
            name = "https:__index.docker.io_v1_" if host == "docker.io" else host
            answer = {"ServerURL": host, "Username": login.username, "Secret": login.password}
            (self.answers / name).write_text(json.dumps(answer))

    def damage(self) -> bool:
        self.program.write_text("#!/bin/sh\necho the vault is sealed; exit 1\n")
        return True


class TestConfigFile(KeychainConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> KeychainStore:
        return ConfigFile(tmp_path)


class TestHelperProgram(KeychainConformance):
    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeychainStore:
        return HelperProgram(tmp_path, monkeypatch)
