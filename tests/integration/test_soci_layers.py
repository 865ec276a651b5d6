"""Layers that SOCI's own tool indexed show what GNU tar extracts from their archives."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from images.gnu_tar import extract_for_overlay
from images.soci_image import LAYERS, archive_of, extract_image, image_manifest
from integration.opened import opened_image
from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import Digest
from lazylayer.errors import FormatError, LazylayerError
from lazylayer.layers.layer import Layer
from lazylayer_testing.facts.layers import layer_facts
from lazylayer_testing.facts.trees import TreeFacts, differences, snapshot_tree

INDEXED = LAYERS[:-1]
Expected = dict[str, tuple[TreeFacts, frozenset[bytes]]]


@pytest.fixture(scope="module")
def layout(server_directory: Path) -> Iterator[Path]:
    yield extract_image(server_directory / "soci-layers")
    shutil.rmtree(server_directory / "soci-layers")


def blob_of(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / "sha256" / digest[7:]).read_bytes()


@pytest.fixture(scope="module")
def expected(as_root: None, layout: Path, server_directory: Path) -> Expected:
    """What GNU tar and overlayfs make of each layer, and its implicit directories."""
    found: Expected = {}
    archives: dict[str, str] = {}
    for name, layer in zip(LAYERS, image_manifest(layout).layers, strict=True):
        archive = archive_of(name, blob_of(layout, layer.digest))
        digest = hashlib.sha256(archive).hexdigest()
        same = archives.setdefault(digest, name)
        if same == name:
            (server_directory / "layer.tar").write_bytes(archive)
            directory = server_directory / "soci-oracle"
            implicit = extract_for_overlay(server_directory / "layer.tar", directory)
            found[name] = snapshot_tree(directory, unknown_mtimes=implicit), implicit
            shutil.rmtree(directory)
        found[name] = found[same]
    return found


def contents_read_by_the_engine(layer: Layer) -> dict[bytes, str]:
    return {
        path: hashlib.sha256(layer.read(entry, 0, entry.size)).hexdigest()
        for path, entry in layer.tree.walk()
        if entry.is_file
    }


@pytest.mark.parametrize("name", INDEXED)
def test_indexed_layer_shows_what_tar_extracts(name: str, layout: Path, expected: Expected, tmp_path: Path) -> None:
    facts, implicit = expected[name]
    with opened_image(tmp_path, f"oci:{layout}", "", LAYERS.index(name)) as image:
        (layer,) = image.layers
        assert isinstance(layer, Layer)
        shown = layer_facts(layer.contents, blob_of(layout, layer.digest), unknown_mtimes=implicit)
        assert differences(facts, shown) == []
        read = contents_read_by_the_engine(layer)
        assert read == {path: each.sha256 for path, each in facts.items() if each.sha256}
        complete = Event()
        layer.when_complete(complete.set)
        layer.prefetch(ByteRange(0, layer.descriptor.size))
        assert complete.wait(20)


def test_layer_without_an_index_of_its_own_is_left_to_be_fetched_whole(layout: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(FormatError, match="unsupported format"),
        opened_image(tmp_path, f"oci:{layout}", "", LAYERS.index("small")),
    ):
        pass


@pytest.mark.parametrize("damage", ["index", "ztoc"])
def test_index_that_was_changed_is_not_used(layout: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(layout, copy)
    index = Digest(image_manifest(copy).annotations["com.amazon.soci.index-digest"])
    victim = index if damage == "index" else json.loads(blob_of(copy, index))["layers"][0]["digest"]
    blob = copy / "blobs" / "sha256" / victim[7:]
    blob.write_bytes(blob.read_bytes().replace(b"0", b"1"))
    with pytest.raises(LazylayerError), opened_image(tmp_path, f"oci:{copy}", "", 0):
        pass
