"""A registry that lies about the size of a blob breaks one opening, and nothing that outlives it."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lazylayer.api.oci import Descriptor, parse_reference, sha256_digest
from lazylayer.errors import LazylayerError
from lazylayer.layers.store import LayerStore
from lazylayer.program import Program
from lazylayer_building import BuildOptions
from lazylayer_testing.registry import Fault, ImageLayer, ScriptedRegistry
from lazylayer_tool_images.building import build_layer

NAME = "tests/lies"
CONTENT = random.Random(1).randbytes(400_000)


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> ImageLayer:
    directory = tmp_path_factory.mktemp("builder")
    archive, built = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as members:
        member = tarfile.TarInfo("file")
        member.size = len(CONTENT)
        members.addfile(member, io.BytesIO(CONTENT))
    archive.seek(0)
    with Program.load(overrides=[f"root={directory}/root", f"run={directory}/run"]) as builder:
        made = build_layer(builder.hooks, "estargz", archive, built, BuildOptions(chunk_size=50_000))
    return ImageLayer(built.getvalue(), made.descriptor.media_type, made.descriptor.annotations, made.diff_id)


@pytest.fixture
def registry(layer: ImageLayer) -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as registry:
        registry.content.add_image(NAME, "latest", [layer])
        yield registry


@contextmanager
def opened(directory: Path, registry: ScriptedRegistry, mirror: str = "") -> Iterator[LayerStore]:
    file = directory / "lazylayer.toml"
    mirrors = f'mirrors = [{{url = "{mirror}"}}]' if mirror else ""
    file.write_text(
        f'root = "{directory}/root"\nrun = "{directory}/run"\n'
        f'[[resolver.hosts]]\nhost = "{registry.host}"\nserver = "{registry.url}"\n{mirrors}\n'
        "[background]\nenabled = false\n[prefetch]\nenabled = false\n"
    )
    with Program.load(file) as program:
        store = LayerStore(program.settings, program.hooks)
        yield store
        store.close()


def read(store: LayerStore, registry: ScriptedRegistry, layer: ImageLayer) -> bytes:
    unknown = Descriptor(layer.media_type, sha256_digest(layer.data), 0, dict(layer.annotations))
    with store.lend(parse_reference(registry.reference(NAME)), unknown) as lent:
        entry = lent.layer.tree.lookup(b"file")
        assert entry is not None
        return lent.layer.read(entry, 0, entry.size)


@pytest.mark.parametrize("size", [100, 399_999, 10**9])
def test_a_lie_is_forgotten(tmp_path: Path, registry: ScriptedRegistry, layer: ImageLayer, size: int) -> None:
    lie = registry.script(Fault(content_range=f"bytes 0-9/{size}"), path="*/blobs/*", times=1)
    with opened(tmp_path, registry) as store:
        try:
            assert read(store, registry, layer) == CONTENT
        except LazylayerError:
            assert read(store, registry, layer) == CONTENT
        assert lie.matched
    with opened(tmp_path, registry) as store:
        assert read(store, registry, layer) == CONTENT


def test_a_lie_on_disk_is_forgotten(tmp_path: Path, registry: ScriptedRegistry, layer: ImageLayer) -> None:
    for size in (100, 10**9):
        with Program.load(overrides=[f"root={tmp_path}/root", f"run={tmp_path}/run"]) as program:
            cache = program.hooks.of("cache_dir").open_cache("ranges")
            cache.remove(f"{sha256_digest(layer.data)}:size")
            cache.put(f"{sha256_digest(layer.data)}:size", b"%d" % size)
            cache.close()
        with opened(tmp_path, registry) as store:
            assert read(store, registry, layer) == CONTENT


def test_a_mirror_that_lies_is_skipped(tmp_path: Path, registry: ScriptedRegistry, layer: ImageLayer) -> None:
    with ScriptedRegistry(registry.content) as mirror:
        mirror.script(Fault(content_range="bytes 0-9/1000000000"), path="*/blobs/*", times=None)
        with opened(tmp_path, registry, mirror.url) as store:
            assert read(store, registry, layer) == CONTENT


def test_a_size_is_kept_after_a_good_opening(tmp_path: Path, registry: ScriptedRegistry, layer: ImageLayer) -> None:
    with opened(tmp_path, registry) as store:
        assert read(store, registry, layer) == CONTENT
    registry.forget_requests()
    with opened(tmp_path, registry) as store:
        assert read(store, registry, layer) == CONTENT
    assert registry.requests == []
