"""What the guide for plugin authors says is true: followed to the letter, it makes a cache that serves mounts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from e2e.command_line import CommandLine
from integration.third_party import guide_files, pip_install, write_distribution
from meta.repository import ROOT

TEMPLATE = ROOT / "plugins" / "_template"
NAMES = {
    "lazylayer-cache-tiny": "acme-shelf",
    "lazylayer_cache_tiny": "acme_shelf",
    "cache_tiny": "cache_shelf",
    "CacheTiny": "CacheShelf",
    "TinyCache": "Shelf",
    ".tiny import": ".shelf import",
    "/tiny.py": "/shelf.py",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a stranger's plugin is installed that was written from the guide."""
    directory = tmp_path_factory.mktemp("third-party")
    write_distribution(directory / "shelf", NAMES)
    pip_install(directory / "shelf", directory / "site")
    return directory / "site"


@pytest.fixture
def command_line(tmp_path: Path, site: Path) -> CommandLine:
    settings = {"cache.chunks": "cache_shelf", "cache.ranges": "cache_shelf", "log.level": "DEBUG"}
    command_line = CommandLine(tmp_path, **settings)
    command_line.environment["PYTHONPATH"] = str(site)
    return command_line


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(3):
        (tree / f"file-{number}").write_bytes(bytes([number]) * 100_000)
    return tree


@pytest.fixture
def reference(command_line: CommandLine, tree: Path, tmp_path: Path) -> str:
    reference = f"oci:{tmp_path / 'layout'}:latest"
    command_line.run("convert", f"dir:{tree}", reference)
    return reference


def hits(log: str) -> dict[str, tuple[int, int]]:
    """What the plugin says when it is closed: values and hits, by purpose."""
    lines = re.findall(r"cache_shelf: (\d+) (chunks|ranges), (\d+) hits", log)
    return {purpose: (int(values), int(found)) for values, purpose, found in lines}


def test_guide_shows_the_files_of_the_template() -> None:
    files = guide_files()
    shown = {path: (TEMPLATE / path).read_text() for path in files}
    assert files == shown
    code = {path.relative_to(TEMPLATE).as_posix() for path in TEMPLATE.rglob("*.py")} | {"pyproject.toml"}
    assert set(files) == code


def test_template_is_built_installed_and_passes_its_tests(tmp_path: Path) -> None:
    folder = shutil.copytree(TEMPLATE, tmp_path / "template", ignore=shutil.ignore_patterns("__pycache__"))
    pip_install(folder, tmp_path / "site")
    assert (tmp_path / "site" / "lazylayer_cache_tiny" / "py.typed").exists()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder / "tests")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_of_the_template_run_in_place(tmp_path: Path) -> None:
    folder = shutil.copytree(TEMPLATE, tmp_path / "template", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not Conformance"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_third_party_cache_is_listed_and_passes_the_kit(command_line: CommandLine) -> None:
    listed = json.loads(command_line.run("plugins", "list", "--json").stdout)
    plugins = listed["plugins"] if isinstance(listed, dict) else listed
    (shelf,) = [each for each in plugins if each["name"] == "cache_shelf"]
    assert (shelf["status"], shelf["distribution"], shelf["version"]) == ("ok", "acme-shelf", "0.1.0")
    done = command_line.run("plugins", "check", "cache_shelf", "--", "-q")
    assert b" passed" in done.stdout


def test_third_party_cache_takes_options(command_line: CommandLine, reference: str) -> None:
    done = command_line.run("cat", reference, "/file-0", settings={"plugin.cache_shelf.size": "1"}, check=False)
    assert done.returncode == 78
    assert b"plugin.cache_shelf.size" in done.stderr


def test_third_party_cache_serves_reads(command_line: CommandLine, reference: str, tree: Path) -> None:
    done = command_line.run("cat", reference, "/file-1", "/file-1")
    assert done.stdout == (tree / "file-1").read_bytes() * 2
    said = hits(done.stderr.decode())
    assert said["chunks"][0] >= 1
    assert said["chunks"][1] >= 1
    assert said["ranges"][0] >= 1
    assert not (command_line.root / "cache").exists(), "the default cache was not used"


@pytest.mark.fuse
@pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK), reason="needs /dev/fuse")
def test_third_party_cache_serves_a_mount(command_line: CommandLine, reference: str, tree: Path) -> None:
    mountpoint = command_line.directory / "mountpoint"
    mountpoint.mkdir()
    command = command_line.command("mount", "--foreground", "--frontend", "frontend_fuse", reference, mountpoint)
    environment = {**os.environ, **command_line.environment}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as serving:
        assert serving.stdout is not None
        assert serving.stderr is not None
        try:
            while not mountpoint.is_mount():
                with suppress(subprocess.TimeoutExpired):
                    serving.wait(0.05)
                assert serving.poll() is None, serving.stderr.read().decode()
            for name in ("file-0", "file-1", "file-2"):
                assert (mountpoint / name).read_bytes() == (tree / name).read_bytes()
            command_line.run("umount", mountpoint)
            said = hits(serving.communicate(timeout=60)[1].decode())
        finally:
            if serving.poll() is None:
                serving.kill()
    assert said["chunks"][0] >= 3
    assert not (command_line.root / "cache").exists(), "the default cache was not used"
