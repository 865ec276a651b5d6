"""Mirrors that serve wrong bytes: no reader gets them, and the next place is asked."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from images.lazy_layer import build_estargz
from integration.opened import opened_image
from lazylayer.api.oci import sha256_digest
from lazylayer.errors import LazylayerError, VerificationError
from lazylayer.layers.image import Image
from lazylayer.program import Program
from lazylayer_building import BuildOptions
from lazylayer_testing.registry import ImageLayer, ScriptedRegistry

NAME = "tests/mirrored"
CHUNK = 100_000
CONTENT = random.Random(1).randbytes(20 * CHUNK)


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> ImageLayer:
    directory = tmp_path_factory.mktemp("builder")
    with Program.load(overrides=[f"root={directory}/root", f"run={directory}/run"]) as builder:
        return build_estargz(builder.hooks, {"file": CONTENT}, BuildOptions(chunk_size=CHUNK))


@contextmanager
def serving(layer: ImageLayer, damage: slice | None = None) -> Iterator[ScriptedRegistry]:
    """A registry whose layer has other bytes at `damage` than its digest promises."""
    with ScriptedRegistry() as registry:
        registry.content.add_image(NAME, "latest", [layer])
        if damage is not None:
            data = bytearray(layer.data)
            data[damage] = bytes(byte ^ 0xFF for byte in data[damage])
            registry.content.replace_blob(sha256_digest(layer.data), bytes(data))
        yield registry


def opened(directory: Path, registry: ScriptedRegistry, *mirrors: ScriptedRegistry) -> AbstractContextManager[Image]:
    places = ", ".join(f'{{url = "{mirror.url}"}}' for mirror in mirrors)
    configuration = (
        f'[[resolver.hosts]]\nhost = "{registry.host}"\nserver = "{registry.url}"\nmirrors = [{places}]\n'
        "[fetch]\nwindow_min = 1\nwindow_max = 1\n"
    )
    return opened_image(directory, registry.reference(NAME), configuration)


def read(image: Image) -> bytes:
    found = image.find(b"/file")
    assert found is not None
    return b"".join(found.read(at, CHUNK) for at in range(0, len(CONTENT), CHUNK))


def blob_requests(registry: ScriptedRegistry, layer: ImageLayer) -> int:
    return sum("/blobs/" in request.path and request.method == "GET" for request in registry.requests)


MIDDLE = slice(5 * CHUNK, 5 * CHUNK + 3)


def test_wrong_bytes_of_a_mirror_are_asked_of_the_registry(layer: ImageLayer, tmp_path: Path) -> None:
    with serving(layer, MIDDLE) as mirror, serving(layer) as registry, opened(tmp_path, registry, mirror) as image:
        assert read(image) == CONTENT
        assert image.layers[0].state().source.startswith(registry.host), "the mirror is passed over from then on"
        asked = blob_requests(mirror, layer)
        assert 0 < asked < 10
        assert read(image) == CONTENT
        assert blob_requests(mirror, layer) == asked
        assert not image.layers[0].state().error


def test_a_wrong_table_of_contents_is_asked_of_the_registry(layer: ImageLayer, tmp_path: Path) -> None:
    end = len(layer.data)
    with (
        serving(layer, slice(end - 400, end - 300)) as mirror,
        serving(layer) as registry,
        opened(tmp_path, registry, mirror) as image,
    ):
        assert read(image) == CONTENT


def test_the_next_mirror_is_asked_before_the_registry(layer: ImageLayer, tmp_path: Path) -> None:
    with (
        serving(layer, MIDDLE) as first,
        serving(layer) as second,
        serving(layer) as registry,
        opened(tmp_path, registry, first, second) as image,
    ):
        assert read(image) == CONTENT
        assert image.layers[0].state().source.startswith(second.host)


def test_when_all_are_wrong_it_is_an_error_and_an_end(layer: ImageLayer, tmp_path: Path) -> None:
    with (
        serving(layer, MIDDLE) as mirror,
        serving(layer, MIDDLE) as registry,
        opened(tmp_path, registry, mirror) as image,
    ):
        for _ in range(3):
            with pytest.raises(LazylayerError, match="bytes at"):
                read(image)
        assert blob_requests(mirror, layer) + blob_requests(registry, layer) < 40


def test_a_registry_without_mirrors_is_asked_once(layer: ImageLayer, tmp_path: Path) -> None:
    with serving(layer, MIDDLE) as registry, opened(tmp_path, registry) as image:
        found = image.find(b"/file")
        assert found is not None
        before = len(registry.requests)
        number = next(at for at in range(0, len(CONTENT), CHUNK) if _fails(image, at))
        assert abs(number - 5 * CHUNK) <= CHUNK
        assert len(registry.requests) - before <= number // CHUNK + 1


def _fails(image: Image, offset: int) -> bool:
    found = image.find(b"/file")
    assert found is not None
    try:
        return found.read(offset, CHUNK) != CONTENT[offset : offset + CHUNK]
    except VerificationError:
        return True
