"""What is asked of a registry, counted: fetching only what is read, once, in few requests."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from images.lazy_layer import build_estargz
from lazylayer.api.oci import parse_reference
from lazylayer.layers.image import Image
from lazylayer.mounts.filesystem import Filesystem
from lazylayer.program import Program
from lazylayer_building import BuildOptions
from lazylayer_testing.registry import Fault, Gate, RecordedRequest, ScriptedRegistry

MIB = 1024 * 1024
SMALL_FILES = 70
LARGE_SIZE = 30 * MIB
MORE_THAN_SOCKETS_HOLD = 90 * MIB  # a half of it, too, fits into no buffers between a server and its client
NAME = "tests/hundred-megabytes"


def content(number: int) -> bytes:
    return random.Random(number).randbytes(MIB)


def large() -> bytes:
    return random.Random("large").randbytes(LARGE_SIZE)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedRegistry]:
    """A registry with an image of 100 MB that does not compress."""
    with ScriptedRegistry() as registry:
        with program(registry, tmp_path_factory.mktemp("builder")) as builder:
            files = {f"small/{number}": content(number) for number in range(SMALL_FILES)}
            layer = build_estargz(builder.hooks, {"large": large(), **files}, BuildOptions(level=1))
            registry.content.add_image(NAME, "latest", [layer])
        yield registry


@contextmanager
def program(registry: ScriptedRegistry, directory: Path, *settings: str) -> Iterator[Program]:
    overrides = [f"root={directory}/root", f"run={directory}/run", f'resolve.plain_http=["{registry.host}"]']
    with Program.load(overrides=[*overrides, *settings]) as made:
        yield made


@contextmanager
def opened(registry: ScriptedRegistry, directory: Path, *settings: str) -> Iterator[tuple[Filesystem, Image]]:
    registry.forget_requests()
    with program(registry, directory, *settings) as made:
        filesystem = Filesystem(made)
        try:
            image = filesystem.open_image(parse_reference(registry.reference(NAME)))
            yield filesystem, image
            image.close()
        finally:
            filesystem.close()


def read(image: Image, path: bytes, offset: int = 0, size: int = 1 << 40) -> bytes:
    merged = image.merged()
    entry = merged.tree.lookup(path)
    assert entry is not None
    end = min(offset + size, entry.size)
    return b"".join(merged.read(entry, at, min(128 * 1024, end - at)) for at in range(offset, end, 128 * 1024))


def ranges(registry: ScriptedRegistry) -> list[RecordedRequest]:
    return [each for each in registry.requests_of("blob") if "range" in {name.lower() for name in each.headers}]


def test_one_file_of_a_large_image_costs_little(registry: ScriptedRegistry, tmp_path: Path) -> None:
    with opened(registry, tmp_path) as (_, image):
        assert len(registry.requests) <= 4, "to open: manifest, config, and the layer's table of contents"
        opening = len(registry.requests)
        assert read(image, b"small/33") == content(33)
        assert len(registry.requests) - opening <= 2
        assert registry.blob_bytes_sent < 3 * MIB


def test_a_cold_file_is_fetched_once_for_all_its_readers(registry: ScriptedRegistry, tmp_path: Path) -> None:
    with opened(registry, tmp_path) as (_, image):
        registry.forget_requests()
        gate = Gate()
        registry.script(Fault(hold=gate), path="*/blobs/*")
        barrier = threading.Barrier(8 + 1)

        def reader(_: int) -> bytes:
            barrier.wait(30)
            return read(image, b"small/7")

        with ThreadPoolExecutor(8) as threads:
            results = threads.map(reader, range(8))
            barrier.wait(30)
            gate.release()
            assert set(results) == {content(7)}
        registry.forget_rules()
        assert registry.blob_bytes_sent < 1.1 * MIB + 64 * 1024
        assert len(registry.requests) == 1


def test_reading_a_large_file_makes_large_requests(registry: ScriptedRegistry, tmp_path: Path) -> None:
    with opened(registry, tmp_path) as (_, image):
        registry.forget_requests()
        assert read(image, b"large") == large()
        assert LARGE_SIZE / len(registry.requests) >= MIB
        assert registry.blob_bytes_sent < 1.05 * LARGE_SIZE


def test_what_was_read_once_is_not_fetched_again(registry: ScriptedRegistry, tmp_path: Path) -> None:
    with opened(registry, tmp_path) as (_, image):
        read(image, b"small/1")
    with opened(registry, tmp_path) as (_, image):
        assert registry.requests_of("blob") in ([], registry.requests_of("blob")[:1]), "at most the image config"
        assert read(image, b"small/1") == content(1)
        assert registry.blob_bytes_sent < 64 * 1024


@pytest.mark.seed(7)
def test_the_rest_is_fetched_in_the_background_in_large_requests(registry: ScriptedRegistry, tmp_path: Path) -> None:
    settings = ["background.silence=0", f"background.request_size={8 * MIB}"]
    with opened(registry, tmp_path, *settings) as (filesystem, image):
        (layer,) = image.layers
        registry.forget_requests()
        filesystem.layers.prefetcher.layer(layer, {})
        pause = threading.Event()
        while not layer.complete:
            pause.wait(0.01)
        assert registry.blob_bytes_sent <= layer.blob.size
        assert registry.blob_bytes_sent / len(registry.requests) >= 4 * MIB
        registry.forget_requests()
        assert read(image, b"small/69") == content(69)
        assert registry.requests == []


@pytest.mark.seed(8)
def test_background_fetching_makes_way_for_a_reader(registry: ScriptedRegistry, tmp_path: Path) -> None:
    """A background request is held in its middle; a reader comes; only then may it go on."""
    settings = [
        "background.silence=0",
        "background.concurrency=1",
        f"background.request_size={MORE_THAN_SOCKETS_HOLD}",
    ]
    with opened(registry, tmp_path, *settings) as (filesystem, image):
        (layer,) = image.layers
        registry.forget_requests()
        background, reading = Gate(), Gate()
        registry.script(Fault(hold=background), path="*/blobs/*")
        registry.script(Fault(hold=reading), path="*/blobs/*", skip=1)
        filesystem.layers.prefetcher.layer(layer, {})
        pause = threading.Event()
        while len(registry.requests) < 1:
            pause.wait(0.01)
        with ThreadPoolExecutor(1) as threads:
            result = threads.submit(read, image, b"small/60")
            while len(registry.requests) < 2:
                pause.wait(0.01)
            background.release()
            # The background request is given up in its middle, and none follows while the reader waits.
            while not registry.requests[0].finished:
                pause.wait(0.01)
            assert len(registry.requests) == 2
            reading.release()
            assert result.result(60) == content(60)
        registry.forget_rules()
        while not layer.complete:
            pause.wait(0.01)
        assert registry.requests[0].sent < MORE_THAN_SOCKETS_HOLD
        assert read(image, b"large") == large()
