"""What every file and every plugin folder keeps to."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from meta.repository import PLUGIN_FOLDERS, ROOT, modules, text_files

MAX_LINES = 450


def project(path: Path) -> dict[str, Any]:
    return tomllib.loads((path / "pyproject.toml").read_text())


WORKSPACE = project(ROOT)


def test_modules_are_small() -> None:
    lengths = {path.relative_to(ROOT): path.read_text().count("\n") for path in modules()}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def test_nobody_imports_what_he_must_not_know() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--config", "importlinter.toml", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_text_names_no_machine() -> None:
    # Written so that this file does not find itself.
    places = [r"(?<![\w.])/wo" + "rk/", "/tmp/" + "ll/", "/Us" + "ers/"]
    hosts = {urlsplit(value).hostname for name, value in os.environ.items() if re.search("INDEX|PROXY", name.upper())}
    hosts |= {socket.gethostname()} if "." in socket.gethostname() else set()
    names = [re.escape(host) for host in hosts if host and host not in ("localhost", "127.0.0.1", "pypi.org")]
    forbidden = re.compile("|".join([*places, *names]))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in text_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (match := forbidden.search(line))
    ]
    assert found == []


@pytest.mark.parametrize("folder", PLUGIN_FOLDERS, ids=lambda folder: folder.name)
class TestPluginFolder:
    def test_one_name_everywhere(self, folder: Path) -> None:
        if folder.name == "_template":
            return
        described = project(folder)["project"]
        assert described["name"] == f"lazylayer-{folder.name.replace('_', '-')}"
        package = f"lazylayer_{folder.name}"
        plugins = described["entry-points"].get("lazylayer.plugins", {})
        commands = described["entry-points"].get("lazylayer.commands", {})
        assert list(plugins) == [folder.name] or (not plugins and commands)
        for target in [*plugins.values(), *commands.values()]:
            assert target.partition(":")[0].partition(".")[0] == package
        assert (folder / package / "__init__.py").is_file()

    def test_is_complete(self, folder: Path) -> None:
        assert (folder / "README.md").read_text().startswith("# ")
        assert list(folder.glob("*/py.typed"))
        assert list((folder / "tests").glob("test_*.py"))
        assert not (folder / "tests" / "__init__.py").exists()
        described = project(folder)["project"]
        assert described["license"] == "Apache-2.0"
        assert described["description"].endswith(".")
        assert described["requires-python"] == WORKSPACE["project"]["requires-python"]

    def test_is_in_the_workspace(self, folder: Path) -> None:
        if folder.name == "_template":
            assert "plugins/_template" in WORKSPACE["tool"]["uv"]["workspace"]["exclude"]
            return
        name = project(folder)["project"]["name"]
        package = f"lazylayer_{folder.name}"
        linter = tomllib.loads((ROOT / "importlinter.toml").read_text())["tool"]["importlinter"]
        forbidden, independent = linter["contracts"][:2]
        wanted = [re.sub(r"\[.*?\]", "", each) for each in WORKSPACE["project"]["dependencies"]]
        assert f"{name} @ {{root:uri}}/plugins/{folder.name}" in wanted
        assert name in WORKSPACE["tool"]["uv"]["sources"]
        assert package in linter["root_packages"]
        assert package in forbidden["forbidden_modules"]
        assert package in independent["modules"]
