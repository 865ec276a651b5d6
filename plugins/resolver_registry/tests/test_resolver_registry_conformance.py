"""The plugin passes the conformance tests of resolvers."""

from __future__ import annotations

from pathlib import Path

import pytest

from lazylayer.api.oci import Reference, parse_reference
from lazylayer_testing.registry import Fault, ScriptedRegistry
from lazylayer_testing.resolver import ResolverConformance, ResolverShelf

from .client import REPOSITORY, Client


class Shelf:
    def __init__(self, registry: ScriptedRegistry, client: Client) -> None:
        self.registry = registry
        self.plugin = client.plugin

    def put(self, layout: Path, name: str) -> Reference:
        self.registry.content.add_layout(layout, REPOSITORY, name)
        return parse_reference(self.registry.reference(REPOSITORY, name))

    def damage(self, digest: str) -> bool:
        self.registry.script(Fault(rewrite=lambda body: body[:-1] + b" "), path=f"*/{digest}", times=None)
        return True

    def take_away(self) -> bool:
        self.registry.script(Fault(reset_after=-1), times=None)
        return True

    def new_reference(self) -> Reference:
        return parse_reference(self.registry.reference("tests/new", "1"))


class TestRegistry(ResolverConformance):
    @pytest.fixture
    def shelf(self, registry: ScriptedRegistry) -> ResolverShelf:
        return Shelf(registry, Client(registry, attempts=2))


class TestRedirectingRegistry(ResolverConformance):
    @pytest.fixture
    def shelf(self, registry: ScriptedRegistry, storage: ScriptedRegistry) -> ResolverShelf:
        registry.redirect_blobs(storage)
        return Shelf(registry, Client(registry, attempts=2))

    def test_what_is_gone_is_an_error(self, *_: object) -> None:
        pytest.skip("its storage stays")

    def test_damage_of_an_image_is_noticed(self, *_: object) -> None:
        pytest.skip("its storage is whole")


class TestMirroredRegistry(ResolverConformance):
    @pytest.fixture
    def shelf(self, registry: ScriptedRegistry, storage: ScriptedRegistry) -> ResolverShelf:
        """Return a shelf with an empty mirror, so everything comes from the registry."""
        hosts = [{"host": registry.host, "mirrors": [{"url": storage.url}]}]
        return Shelf(registry, Client(registry, {"hosts": hosts}, attempts=2))
