"""A keychain, a resolver and a format that strangers wrote from the guide: each passes its kit and is used at once.

They are distributions outside of this workspace, in the folders `third_party_…` beside this file.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from e2e.command_line import CommandLine
from integration.third_party import pip_install
from lazylayer_testing.registry import BasicAuthentication, ScriptedRegistry

HERE = Path(__file__).parent
PLUGINS = {"keychain": "keychain_toml", "resolver": "resolver_zip", "format": "format_noted"}
MAX_LINES = 100


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the three plugins are installed."""
    site = tmp_path_factory.mktemp("third-party") / "site"
    for kind in PLUGINS:
        pip_install(HERE / f"third_party_{kind}", site)
    return site


@pytest.fixture
def command_line(tmp_path: Path, site: Path) -> CommandLine:
    command_line = CommandLine(tmp_path)
    command_line.environment["PYTHONPATH"] = str(site)
    return command_line


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(bytes(range(256)) * 1000)
    return tmp_path / "tree"


@pytest.mark.parametrize("kind", PLUGINS)
def test_it_is_small(kind: str) -> None:
    (module,) = (HERE / f"third_party_{kind}").glob("acme_*/__init__.py")
    assert len(module.read_text().splitlines()) < MAX_LINES


@pytest.mark.parametrize("kind", PLUGINS)
def test_it_passes_its_tests_with_the_kit(kind: str, site: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, "-c", os.devnull]
    tests = shutil.copytree(HERE / f"third_party_{kind}" / "tests", tmp_path / "tests")
    done = subprocess.run(
        [*map(str, command), str(tests)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", PLUGINS)
def test_it_is_listed_and_checked(command_line: CommandLine, kind: str, tmp_path: Path) -> None:
    (tmp_path / "any").write_text("")
    settings = {} if kind == "format" else {f"plugin.{PLUGINS[kind]}.file": str(tmp_path / "any")}
    listed = json.loads(command_line.run("plugins", "list", "--json", settings=settings).stdout)["plugins"]
    (record,) = [each for each in listed if each["name"] == PLUGINS[kind]]
    assert record["status"] == "ok", record["reason"]
    command_line.run("plugins", "check", PLUGINS[kind], "--", "-q", settings=settings)


def test_keychain_logs_in(command_line: CommandLine, tree: Path, tmp_path: Path) -> None:
    with ScriptedRegistry(authentication=BasicAuthentication({"ann": "hunter2"})) as registry:
        (tmp_path / "logins.toml").write_text(f'["{registry.host}"]\nusername = "ann"\npassword = "hunter2"\n')
        settings = {"resolve.plain_http": f'["{registry.host}"]'}
        reference = registry.reference("team/app")
        refused = command_line.run("convert", f"dir:{tree}", reference, settings=settings, check=False)
        assert refused.returncode == 1
        settings["plugin.keychain_toml.file"] = str(tmp_path / "logins.toml")
        command_line.run("convert", f"dir:{tree}", reference, settings=settings)
        assert command_line.run("cat", reference, "/file", settings=settings).stdout == (tree / "file").read_bytes()


def test_resolver_finds_images(command_line: CommandLine, tree: Path, tmp_path: Path) -> None:
    command_line.run("convert", f"dir:{tree}", f"oci:{tmp_path / 'layout'}:app")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for file in (tmp_path / "layout").rglob("*"):
            archive.write(file, file.relative_to(tmp_path / "layout"))
    settings = {"plugin.resolver_zip.file": str(tmp_path / "images.zip")}
    assert command_line.run("cat", "zip://app", "/file", settings=settings).stdout == (tree / "file").read_bytes()


def test_format_is_written_read_and_verified(command_line: CommandLine, tree: Path, tmp_path: Path) -> None:
    reference = f"oci:{tmp_path / 'layout'}:noted"
    command_line.run("convert", "--format", "noted", f"dir:{tree}", reference)
    assert command_line.run("cat", reference, "/file").stdout == (tree / "file").read_bytes()
    assert b"noted" in command_line.run("verify", reference).stdout
