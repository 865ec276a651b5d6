"""A scripted registry, and the plugin as the core would use it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lazylayer_testing.registry import ScriptedRegistry

from .client import Client


@pytest.fixture
def registry() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as registry:
        yield registry


@pytest.fixture
def storage() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as storage:
        yield storage


@pytest.fixture
def client(registry: ScriptedRegistry) -> Iterator[Client]:
    client = Client(registry)
    yield client
    client.plugin.lazylayer_close()
