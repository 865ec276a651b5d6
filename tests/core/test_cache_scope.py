"""What one image cached is found by others as far as `cache.scope` lets it."""

from __future__ import annotations

import pytest

from lazylayer.api.oci import Reference, parse_reference
from lazylayer.api.settings import CacheSettings, Settings
from lazylayer.layers.store import LayerStore
from lazylayer_testing.synthetic import MemoryPlugin, SyntheticLayer, SyntheticProgram

SECRET = b"of a private image" * 100
PRIVATE = parse_reference("registry.test/private:1")
LATER = parse_reference("registry.test/private:2")
BESIDE = parse_reference("registry.test/public:1")
ELSEWHERE = parse_reference("other.test/private:1")

FOUND: dict[str, set[Reference]] = {
    "shared": {LATER, BESIDE, ELSEWHERE},
    "registry": {LATER, BESIDE},
    "repository": {LATER},
}


@pytest.mark.parametrize("scope", FOUND)
@pytest.mark.parametrize("other", [LATER, BESIDE, ELSEWHERE], ids=str)
def test_a_cached_layer_is_found_within_its_scope(scope: str, other: Reference) -> None:
    """An image that names another one's layer gets it from the cache there, and asks its own registry elsewhere."""
    plugin = MemoryPlugin([SyntheticLayer({b"secret": SECRET})])
    plugin.references |= {PRIVATE, other}
    (descriptor,), (source,) = plugin.descriptors(), plugin.sources.values()
    program = SyntheticProgram(plugin, Settings(cache=CacheSettings(scope=scope)))  # type: ignore[arg-type]
    store = LayerStore(program.settings, program.hooks)
    identities = []
    for reference, fetches in ((PRIVATE, True), (PRIVATE, False), (other, other not in FOUND[scope])):
        source.asked.clear()
        with store.lend(reference, descriptor) as lease:
            layer = lease.layer
            assert layer.read(layer.tree.root.children[b"secret"], 0, len(SECRET)) == SECRET  # type: ignore[index]
            identities.append(layer.identity)
        assert bool(source.asked) is fetches
    assert (identities[0] == identities[2]) is (other in FOUND[scope]), "frontends keep what they write by identity"
    store.close()


def test_keys_stay_within_what_caches_take() -> None:
    place = "registry.example.com:5000", "A/very long/" + "repository" * 30
    for scope in ("registry", "repository"):
        key = CacheSettings(scope=scope).scope_of(*place)
        assert len(key) <= 21
        assert set(key) <= set("0123456789abcdef:")
    assert CacheSettings().scope_of(*place) == ""
