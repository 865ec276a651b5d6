"""Images whose tables of contents are beside them, mounted through both frontends, are what GNU tar extracts."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.command_line import CommandLine
from images.gnu_tar import apply_layers
from images.go_image import GoImages
from lazylayer.api.mounting import Missing
from lazylayer.program import Program
from lazylayer_testing.facts.trees import differences, snapshot_tree

pytestmark = [pytest.mark.fuse, pytest.mark.servers]


@pytest.fixture(scope="module")
def directory(as_root: None, server_directory: Path) -> Iterator[Path]:
    directory = server_directory / "outside-toc"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def odd(go_images: GoImages, odd_layers: list[Path], directory: Path) -> str:
    """An image with every oddity and its tables outside."""
    return convert(go_images.push_plain(odd_layers), directory, "outside")


@pytest.fixture(scope="module")
def python(go_images: GoImages, python_layers: list[Path], directory: Path) -> str:
    """An image whose layers are what they were before, to the byte."""
    return convert(go_images.push_plain(python_layers), directory, "outside-kept", "--keep-diff-id")


def convert(plain: str, directory: Path, tag: str, *options: str) -> str:
    target = plain.removesuffix(":plain") + f":{tag}"
    CommandLine(directory).run("convert", "--plain-http", "--external-toc", *options, plain, target)
    return target


@pytest.mark.parametrize("frontend", ["frontend_fuse", "frontend_erofs"])
@pytest.mark.parametrize("kept", [False, True])
def test_mounted_image_is_what_tar_extracts(
    request: pytest.FixtureRequest, directory: Path, frontend: str, kept: bool
) -> None:
    with Program.load(overrides=[f"root={directory}", f"run={directory}"]) as program:
        found = program.hooks.of(frontend).probe_frontend()
    if isinstance(found, Missing):
        pytest.skip(str(found))
    reference = request.getfixturevalue("python" if kept else "odd")
    layers = request.getfixturevalue("python_layers" if kept else "odd_layers")
    command_line = CommandLine(directory / f"{frontend}-{kept}", **{"mount.frontend": frontend})
    command_line.directory.mkdir()
    expected = directory / "expected"
    implicit = apply_layers(layers, expected)
    try:
        with command_line.mounted(reference, "--plain-http") as mountpoint:
            shown = snapshot_tree(mountpoint, unknown_mtimes=implicit)
        assert differences(snapshot_tree(expected, unknown_mtimes=implicit), shown) == []
    finally:
        shutil.rmtree(expected)


def test_image_is_verified(directory: Path, odd: str, python: str) -> None:
    for reference in (odd, python):
        done = CommandLine(directory).run("verify", "--plain-http", "--json", reference)
        assert all(json.loads(line)["format"] == "estargz" for line in done.stdout.splitlines())


def test_layers_that_are_kept_unpack_to_the_same_bytes(directory: Path, python: str, python_layers: list[Path]) -> None:
    """skopeo copies both images, and gunzip finds the archives in the first."""
    for number, reference in enumerate((python, f"{python}-esgztoc")):
        target = f"dir:{directory}/copied-{number}"
        subprocess.run(
            ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{reference}", target], check=True
        )
    manifest = json.loads((directory / "copied-0/manifest.json").read_bytes())
    for layer, archive in zip(manifest["layers"], python_layers, strict=True):
        blob = directory / "copied-0" / layer["digest"][7:]
        with blob.open("rb") as packed:
            unpacked = subprocess.run(["gunzip"], stdin=packed, capture_output=True, check=True).stdout
        assert unpacked == archive.read_bytes()


def test_without_its_tables_an_image_is_refused(directory: Path, python: str) -> None:
    lonely = python.removesuffix("-kept") + "-lonely"
    copy = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"]
    subprocess.run([*copy, f"docker://{python}", f"docker://{lonely}"], check=True)
    done = CommandLine(directory).run("ls", "--plain-http", lonely, check=False)
    assert done.returncode == 1
    assert f"{lonely}-esgztoc".encode() in done.stderr
    assert b"copy it to where the layer's own image is" in done.stderr
