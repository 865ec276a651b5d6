"""Layers of every lazy format, built by us or by the Go tools, show what GNU tar extracts from the archives."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

import lazylayer_format_estargz
import lazylayer_format_zstdchunked
import lazylayer_resolver_layout
from images.gnu_tar import extract_for_overlay
from images.go_image import GoImages
from images.oci_layout import write_layout
from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.layers import LayerContents
from lazylayer.api.oci import Descriptor, Platform, parse_reference
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.registry import make_manager
from lazylayer_building import BuildOptions
from lazylayer_testing.facts.layers import layer_facts
from lazylayer_testing.facts.trees import TreeFacts, differences, snapshot_tree
from lazylayer_testing.servers.containerd import Containerd
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_testing.synthetic import companions_of, make_blob
from lazylayer_tool_images.building import build_layer
from lazylayer_tool_images.conversion import Conversion, ConversionOptions
from lazylayer_tool_images.verification import verify_image

LAYERS = [0, 1, 2]
FORMATS = ["estargz", "zstdchunked", "zstdchunked-podman"]
Expected = tuple[TreeFacts, frozenset[bytes]]


@pytest.fixture(scope="module")
def hooks() -> Hooks:
    manager = make_manager()
    for plugin in (lazylayer_format_estargz, lazylayer_format_zstdchunked, lazylayer_resolver_layout):
        manager.register(plugin)
    return Hooks(manager)


@pytest.fixture(scope="module")
def expected(odd_layers: list[Path], server_directory: Path) -> Iterator[list[Expected]]:
    """What GNU tar and overlayfs make of each layer, and its implicit directories."""
    found = []
    for number, archive in enumerate(odd_layers):
        directory = server_directory / f"oracle-{number}"
        implicit = extract_for_overlay(archive, directory)
        found.append((snapshot_tree(directory, unknown_mtimes=implicit), implicit))
        shutil.rmtree(directory)
    yield found


def build(hooks: Hooks, archive: Path, form: str = "estargz", **options: Any) -> tuple[bytes, LayerContents]:
    """Builds a layer of an archive and opens it again."""
    destination = io.BytesIO()
    with archive.open("rb") as source:
        built = build_layer(hooks, form, source, destination, BuildOptions(**options))
    return destination.getvalue(), open_layer(hooks, destination.getvalue(), built.descriptor)


def open_layer(hooks: Hooks, blob: bytes, descriptor: Descriptor) -> LayerContents:
    return hooks.open_layer(make_blob(blob), descriptor, True, companions_of(blob))


@pytest.mark.parametrize("number", LAYERS)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunk_size": 65536, "level": 1, "jobs": 1},
        {"min_chunk_size": 50_000},
        {"prefetch": [b"sizes", b"nothing"]},
    ],
    ids=["plain", "small chunks", "packed", "prefetched"],
)
def test_built_layer_shows_what_tar_extracts(
    hooks: Hooks, odd_layers: list[Path], expected: list[Expected], number: int, form: str, options: dict[str, Any]
) -> None:
    facts, implicit = expected[number]
    blob, contents = build(hooks, odd_layers[number], form, **options)
    assert differences(facts, layer_facts(contents, blob, unknown_mtimes=implicit)) == []


@pytest.mark.parametrize("form", ["estargz", "zstdchunked"])
def test_built_layer_is_an_ordinary_archive(
    hooks: Hooks, odd_layers: list[Path], expected: list[Expected], server_directory: Path, form: str
) -> None:
    """A runtime that knows nothing of us unpacks it: it finds the same, and our own names."""
    facts, implicit = expected[0]
    blob, _ = build(hooks, odd_layers[0], form)
    archive, directory = server_directory / "ordinary.tar", server_directory / "ordinary"
    if form == "estargz":
        archive.write_bytes(subprocess.run(["gzip", "-d"], input=blob, capture_output=True, check=True).stdout)
    else:
        reader = zstandard.ZstdDecompressor().stream_reader(blob, read_across_frames=True)
        archive.write_bytes(reader.read())
    try:
        extract_for_overlay(archive, directory)
        found = snapshot_tree(directory, unknown_mtimes=implicit)
        ours = {b".no.prefetch.landmark"} | ({b"stargz.index.json"} if form == "estargz" else set())
        assert ours == found.keys() - facts.keys()
        for name in ours:
            del found[name]
        assert differences(facts, found) == []
    finally:
        archive.unlink()
        shutil.rmtree(directory, ignore_errors=True)


def test_result_does_not_depend_on_the_number_of_jobs(hooks: Hooks, odd_layers: list[Path]) -> None:
    blobs = {build(hooks, odd_layers[0], jobs=jobs, chunk_size=100_000)[0] for jobs in (1, 2, 5)}
    assert len(blobs) == 1


@pytest.mark.servers
@pytest.mark.parametrize("form", ["estargz", "small chunks", "zstdchunked", "podman"])
def test_layers_of_the_go_tools_are_read(
    hooks: Hooks,
    go_images: GoImages,
    odd_layers: list[Path],
    expected: list[Expected],
    docker_registry: DockerRegistry,
    server_directory: Path,
    form: str,
) -> None:
    if form == "zstdchunked":
        reference = go_images.push_zstdchunked(odd_layers)
    elif form == "podman":
        chosen = [number for number, layer in enumerate(odd_layers) if _names_are_unique(layer)]
        odd_layers, expected = [odd_layers[each] for each in chosen], [expected[each] for each in chosen]
        assert odd_layers
        reference = go_images.push_zstdchunked_of_podman(odd_layers)
    else:
        reference = go_images.push_estargz(odd_layers, chunk_size=65536 if form == "small chunks" else None)
    layout = server_directory / "go-copy"
    copy = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{reference}", f"oci:{layout}:go"]
    subprocess.run(copy, check=True)
    try:
        image = hooks.resolve_image(parse_reference(f"oci:{layout}:go"), Platform.of_this_machine())
        for descriptor, (facts, implicit) in zip(image.manifest.layers, expected, strict=True):
            blob = (layout / "blobs/sha256" / descriptor.digest[7:]).read_bytes()
            contents = open_layer(hooks, blob, descriptor)
            assert contents.tree.no_prefetch is (form != "podman")
            assert differences(facts, layer_facts(contents, blob, unknown_mtimes=implicit)) == []
        problems = [problem for layer in verify_image(hooks, image) for problem in layer.problems]
        # What makes podman's layers here leaves the config as it was.
        assert [problem for problem in problems if form != "podman" or "the image config says" not in problem] == []
    finally:
        shutil.rmtree(layout)


def _names_are_unique(archive: Path) -> bool:
    """podman's library refuses archives in which a name comes twice, in its newer versions."""
    with tarfile.open(archive) as tar:
        names = [name.strip("/") for name in tar.getnames()]
    return len(names) == len(set(names))


def test_toc_is_as_the_go_tools_write_it(hooks: Hooks, odd_layers: list[Path]) -> None:
    """Fields and their types; nothing that a strict reader would stumble over."""
    blob, contents = build(hooks, odd_layers[0], chunk_size=1_000_000)
    plain = subprocess.run(["gzip", "--decompress"], input=blob, capture_output=True, check=True).stdout
    listing = subprocess.run(
        ["tar", "--extract", "--to-stdout", "stargz.index.json"], input=plain, capture_output=True, check=True
    ).stdout
    toc = json.loads(listing)
    assert toc["version"] == 1
    by_type: dict[str, list[dict[str, Any]]] = {}
    for entry in toc["entries"]:
        by_type.setdefault(entry["type"], []).append(entry)
    assert set(by_type) == {"dir", "reg", "chunk", "hardlink", "symlink", "char", "block", "fifo"}
    assert all(entry["name"].endswith("/") for entry in by_type["dir"])
    assert all(entry["digest"] for entry in by_type["reg"])
    assert all(entry["chunkDigest"] for entry in by_type["chunk"])
    assert len([each for each in toc["entries"] if each["name"] == ".no.prefetch.landmark"]) == 1
    assert contents.tree.inodes > 5000


@pytest.mark.servers
@pytest.mark.parametrize("form", ["estargz", "zstdchunked"])
def test_go_tools_read_our_layers(
    hooks: Hooks,
    odd_layers: list[Path],
    containerd: Containerd,
    docker_registry: DockerRegistry,
    server_directory: Path,
    form: str,
) -> None:
    """Their reader finds our footer, and in it the table of contents with the digest that we promise."""
    plain, ours = server_directory / "plain-layout", server_directory / "our-layout"
    try:
        write_layout(plain, odd_layers, "plain")
        image = hooks.resolve_image(parse_reference(f"oci:{plain}:plain"), Platform.of_this_machine())
        options = ConversionOptions(format=form, build=BuildOptions(chunk_size=1_000_000))
        report = Conversion(hooks, parse_reference(f"oci:{ours}:ours"), options).convert_image(image)
        reference = docker_registry.push_layout(ours, "ours", f"ours-{form}:v")
        containerd.ctr("content", "fetch", "--plain-http", reference)
        for layer in report.layers:
            command = ["images", "get-toc-digest", *(["--zstdchunked"] if form == "zstdchunked" else [])]
            found = containerd.ctr_remote(*command, layer.result.digest)
            assert found.strip() == layer.result.annotations[TOC_DIGEST]
            dumped = json.loads(containerd.ctr_remote(*command, "--dump-toc", layer.result.digest))
            assert dumped["version"] == 1 and dumped["entries"]
    finally:
        shutil.rmtree(plain, ignore_errors=True)
        shutil.rmtree(ours, ignore_errors=True)


@pytest.mark.servers
@pytest.mark.parametrize("form", ["estargz", "zstdchunked"])
def test_containerd_unpacks_our_images(
    hooks: Hooks, containerd: Containerd, docker_registry: DockerRegistry, server_directory: Path, form: str
) -> None:
    """As it unpacks any image, onto overlayfs, knowing nothing of us."""
    tree, layout, shown = (server_directory / name for name in ("unpack-tree", "unpack-layout", "unpack-shown"))
    (tree / "d").mkdir(parents=True)
    shown.mkdir()
    (tree / "d" / "file").write_bytes(b"content" * 1_000_000)
    (tree / "d" / "file").chmod(0o4755)
    (tree / "link").symlink_to("d/file")
    (tree / "hard").hardlink_to(tree / "d" / "file")
    reference = parse_reference(f"oci:{layout}:v")
    try:
        Conversion(hooks, reference, ConversionOptions(format=form)).convert_directory(tree, Platform.of_this_machine())
        name = docker_registry.push_layout(layout, "v", f"unpack-{form}:v")
        containerd.ctr("images", "pull", "--plain-http", name)
        containerd.ctr("images", "mount", name, shown)
        try:
            found = snapshot_tree(shown, unknown_mtimes=[b"."])
        finally:
            containerd.ctr("images", "unmount", "--rm", shown)
        for ours in found.keys() & {b"stargz.index.json", b".no.prefetch.landmark"}:
            del found[ours]
        assert differences(snapshot_tree(tree, unknown_mtimes=[b"."]), found) == []
    finally:
        for directory in (tree, layout, shown):
            shutil.rmtree(directory, ignore_errors=True)
