"""What tokens, redirects and mirrors add to the requests of an image: little, and once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from images.lazy_layer import build_estargz
from integration.opened import opened_image
from lazylayer.layers.image import Image
from lazylayer.program import Program
from lazylayer_building import BuildOptions
from lazylayer_testing.registry import Fault, ImageLayer, ScriptedRegistry, TokenAuthentication

LAYERS = 8
SIZE = 600_000
NAME = "tests/eight-layers"


def content(number: int) -> bytes:
    return random.Random(number).randbytes(SIZE)


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> list[ImageLayer]:
    directory = tmp_path_factory.mktemp("builder")
    with Program.load(overrides=[f"root={directory}/root", f"run={directory}/run"]) as builder:
        return [
            build_estargz(builder.hooks, {f"file-{number}": content(number)}, BuildOptions(level=1))
            for number in range(LAYERS)
        ]


@pytest.fixture
def registry(layers: list[ImageLayer]) -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as registry:
        registry.content.add_image(NAME, "latest", layers)
        yield registry


@pytest.fixture
def other(registry: ScriptedRegistry) -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry(registry.content) as other:
        yield other


def opened(registry: ScriptedRegistry, directory: Path, configuration: str = "") -> AbstractContextManager[Image]:
    caches = '[cache]\nchunks = "cache_memory"\nranges = "cache_memory"\n'
    return opened_image(directory, registry.reference(NAME), f"{configuration}\n{caches}")


def read(image: Image, number: int) -> bool:
    merged = image.merged()
    entry = merged.tree.lookup(b"file-%d" % number)
    assert entry is not None
    return b"".join(merged.read(entry, at, 128 * 1024) for at in range(0, SIZE, 128 * 1024)) == content(number)


def test_one_exchange_of_tokens_for_all_layers(registry: ScriptedRegistry, tmp_path: Path) -> None:
    tokens = TokenAuthentication()
    registry.authentication = tokens
    with opened(registry, tmp_path) as image:
        assert len(registry.requests_of("manifest")) == 2, "one without a token, which is refused"
        assert len(registry.requests_of("blob")) == 1 + LAYERS, "the config, and a table of contents for each layer"
        assert all(read(image, number) for number in range(LAYERS))
        assert len(registry.requests_of("blob")) <= 1 + 3 * LAYERS
        assert len(tokens.exchanges) == 1
        tokens.revoke()
        registry.forget_requests()
    with opened(registry, tmp_path):
        assert len(tokens.exchanges) == 2


def test_a_layer_pays_for_its_redirect_once(
    registry: ScriptedRegistry, other: ScriptedRegistry, tmp_path: Path
) -> None:
    registry.redirect_blobs(other)
    with opened(registry, tmp_path) as image:
        assert len(registry.requests) == 1 + 1 + LAYERS, "manifest, config, and a hop for each layer"
        assert len(other.requests) == 1 + LAYERS
        registry.forget_requests()
        other.forget_requests()
        assert all(read(image, number) for number in range(LAYERS))
        assert registry.requests == [], "no range pays the hop again"
        assert LAYERS <= len(other.requests) <= 2 * LAYERS


def test_an_expired_address_costs_one_more_hop(
    registry: ScriptedRegistry, other: ScriptedRegistry, tmp_path: Path
) -> None:
    signer = registry.redirect_blobs(other)
    with opened(registry, tmp_path) as image:
        signer.expire()
        registry.forget_requests()
        other.forget_requests()
        assert read(image, 3)
        assert len(registry.requests) == 1
        assert other.requests[0].status == 403
        assert all(each.status == 206 for each in other.requests[1:])


def test_a_mirror_takes_all_the_load(registry: ScriptedRegistry, other: ScriptedRegistry, tmp_path: Path) -> None:
    mirrors = f'[[resolver.hosts]]\nhost = "{registry.host}"\nmirrors = [{{ url = "{other.url}" }}]'
    with opened(registry, tmp_path, mirrors) as image:
        assert read(image, 0)
        assert registry.requests == []
        states = [layer.state().source for layer in image.layers]
        assert all(each.startswith(other.host) for each in states), "the state says who serves"
        other.script(Fault(reset_after=-1), times=None)
        assert all(read(image, number) for number in range(1, LAYERS))
        assert len(registry.requests_of("blob")) <= 2 * LAYERS
        assert registry.host in image.layers[1].state().source
