"""Images that the Go tools built, mounted lazily, are what GNU tar extracts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.command_line import CommandLine
from images.gnu_tar import apply_layers, extract_for_overlay
from images.go_image import GoImages
from lazylayer.api.mounting import Missing
from lazylayer.program import Program
from lazylayer_testing.facts.trees import differences, snapshot_tree

pytestmark = [pytest.mark.fuse, pytest.mark.servers]

LAYERS = [0, 1, 2]


@pytest.fixture(scope="module")
def reference(go_images: GoImages, odd_layers: list[Path]) -> str:
    return go_images.push_estargz(odd_layers)


@pytest.fixture(scope="module", params=["frontend_fuse", "frontend_erofs"])
def command_line(request: pytest.FixtureRequest, server_directory: Path) -> Iterator[CommandLine]:
    with Program.load(overrides=[f"root={server_directory}", f"run={server_directory}"]) as program:
        found = program.hooks.of(request.param).probe_frontend()
    if isinstance(found, Missing):
        pytest.skip(str(found))
    directory = server_directory / f"go-images-{request.param}"
    directory.mkdir()
    yield CommandLine(directory, **{"mount.frontend": request.param})
    shutil.rmtree(directory)


@pytest.mark.parametrize("number", LAYERS)
@pytest.mark.seed(10)
def test_a_layer_is_what_overlayfs_wants(
    command_line: CommandLine, reference: str, odd_layers: list[Path], server_directory: Path, number: int
) -> None:
    expected = server_directory / f"expected-{number}"
    implicit = extract_for_overlay(odd_layers[number], expected)
    try:
        with command_line.mounted(reference, "--plain-http", "--layer", str(number)) as mountpoint:
            shown = snapshot_tree(mountpoint, unknown_mtimes=implicit)
        assert differences(snapshot_tree(expected, unknown_mtimes=implicit), shown) == []
    finally:
        shutil.rmtree(expected)


def test_the_merged_image_is_what_a_container_sees(
    command_line: CommandLine, reference: str, odd_layers: list[Path], server_directory: Path
) -> None:
    expected = server_directory / "expected-merged"
    implicit = apply_layers(odd_layers, expected)
    try:
        with command_line.mounted(reference, "--plain-http") as mountpoint:
            shown = snapshot_tree(mountpoint, unknown_mtimes=implicit)
            (mount,) = command_line.status()
        assert differences(snapshot_tree(expected, unknown_mtimes=implicit), shown) == []
        assert [layer["error"] for layer in mount["layers"]] == ["", "", ""]
    finally:
        shutil.rmtree(expected)


def test_small_chunks_make_the_same_tree(
    command_line: CommandLine, go_images: GoImages, odd_layers: list[Path], server_directory: Path
) -> None:
    reference = go_images.push_estargz(odd_layers, chunk_size=65536)
    expected = server_directory / "expected-small-chunks"
    implicit = apply_layers(odd_layers, expected)
    try:
        with command_line.mounted(reference, "--plain-http") as mountpoint:
            shown = snapshot_tree(mountpoint, unknown_mtimes=implicit)
        assert differences(snapshot_tree(expected, unknown_mtimes=implicit), shown) == []
    finally:
        shutil.rmtree(expected)


def test_the_command_line_lists_and_reads_without_a_mount(
    command_line: CommandLine, reference: str, odd_layers: list[Path], server_directory: Path
) -> None:
    expected = server_directory / "expected-listing"
    apply_layers(odd_layers, expected)
    try:
        listed = command_line.run("ls", "--plain-http", f"{reference}:/sizes").stdout
        assert sorted(listed.splitlines()) == sorted(each.name.encode() for each in (expected / "sizes").iterdir())
        largest = max((expected / "sizes").iterdir(), key=lambda each: each.stat().st_size)
        read = command_line.run("cat", "--plain-http", reference, f"/sizes/{largest.name}").stdout
        assert read == largest.read_bytes()
    finally:
        shutil.rmtree(expected)
