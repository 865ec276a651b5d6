"""The hooks of this library are known to the core, and their answers are checked like those of its own."""

from __future__ import annotations

from typing import Any

import pytest

from lazylayer import hookimpl
from lazylayer.api.oci import Descriptor, Digest, Reference
from lazylayer.errors import PluginError
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.registry import make_manager
from lazylayer_building import BuiltLayer

DIGEST = Digest("sha256:" + "0" * 64)


class Builder:
    """A plugin that builds the same layer each time, and opens a store that is none."""

    @hookimpl
    def lazylayer_build_layer(self) -> BuiltLayer:
        return BuiltLayer(Descriptor("application/x", DIGEST, 1), DIGEST)

    @hookimpl
    def lazylayer_open_store(self, reference: Reference) -> Any:
        return reference


@pytest.fixture
def hooks() -> Hooks:
    manager = make_manager()
    manager.register(Builder(), "builder")
    return Hooks(manager)


def test_a_plugin_is_asked_by_name(hooks: Hooks) -> None:
    asked = hooks.of("builder")
    assert asked.why_not("lazylayer_build_layer") == ""
    arguments = {"format": "x", "source": None, "destination": None, "build_options": None}
    assert asked.ask("lazylayer_build_layer", **arguments).diff_id == DIGEST


def test_an_answer_of_the_wrong_type_names_the_plugin(hooks: Hooks) -> None:
    reference = Reference("image", scheme="shelf")
    with pytest.raises(PluginError, match=r"plugin builder, lazylayer_open_store: it returned Reference; expected"):
        hooks.first("lazylayer_open_store", reference=reference, keychain=hooks.keychain(reference))
