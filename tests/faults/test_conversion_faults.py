"""A conversion that cannot end well says so, and leaves no image behind."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import lazylayer_format_estargz
import lazylayer_resolver_layout
from lazylayer.api.oci import Platform, parse_reference
from lazylayer.errors import BuildError, NotFoundError
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.registry import make_manager
from lazylayer_building import BuildOptions
from lazylayer_tool_images.conversion import Conversion, ConversionOptions

AMD = Platform("amd64", "linux")


@pytest.fixture
def hooks() -> Hooks:
    manager = make_manager()
    manager.register(lazylayer_format_estargz)
    manager.register(lazylayer_resolver_layout)
    return Hooks(manager)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three megabytes that cannot be compressed."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(os.urandom(3_000_000))
    return tree


@pytest.fixture
def small_disk(as_root: None, tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    directory = tmp_path / "disk"
    directory.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)], check=False)
    if done.returncode:
        pytest.skip("mounting is not permitted here")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_destination_is_full(hooks: Hooks, tree: Path, small_disk: Path, kind: str) -> None:
    destination = parse_reference(f"{kind}:{small_disk}/image:v")
    with pytest.raises(BuildError, match="No space left"):
        Conversion(hooks, destination, ConversionOptions()).convert_directory(tree, AMD)
    with pytest.raises(NotFoundError):
        hooks.resolve_image(destination, AMD)
    assert not [path for path in small_disk.rglob("*") if path.is_file()]


@pytest.mark.parametrize("globs", [(), (b"file",)])
def test_temporary_files_have_no_room(
    hooks: Hooks,
    tree: Path,
    small_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    globs: tuple[bytes, ...],
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    destination = parse_reference(f"oci:{tmp_path}/image:v")
    with pytest.raises(BuildError, match=r"No space left.*TMPDIR"):
        Conversion(hooks, destination, ConversionOptions(prefetch_globs=globs)).convert_directory(tree, AMD)
    assert not (tmp_path / "image/index.json").exists()
    assert not list(small_disk.iterdir())


def test_source_shrinks_while_it_is_read(hooks: Hooks, tree: Path, tmp_path: Path) -> None:
    destination = parse_reference(f"oci:{tmp_path}/image:v")
    seen = 0

    def shrink(size: int) -> None:
        nonlocal seen
        seen += size
        if seen > 1_000_000:
            os.truncate(tree / "file", 1000)

    with pytest.raises(BuildError, match="shorter"):
        Conversion(
            hooks, destination, ConversionOptions(build=BuildOptions(chunk_size=500_000)), shrink
        ).convert_directory(tree, AMD)
    assert not (tmp_path / "image/index.json").exists()
