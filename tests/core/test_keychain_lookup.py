"""How resolvers ask keychains: through the façade, for the reference at hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lazylayer.api.credentials import Credentials
from lazylayer.api.oci import Descriptor, Digest, Platform, Reference, parse_reference
from lazylayer.errors import PluginError
from lazylayer.plugin.hooks import Hooks
from lazylayer_building.stores import open_store
from synthetic.hooks import any_of, hooks_of, plugin

REFERENCE = parse_reference("registry.test/image:1")
SHELF = Reference("a/b", scheme="shelf")
DESCRIPTOR = Descriptor("application/x", Digest("sha256:" + "0" * 64), 5)
PLATFORM = Platform("linux", "amd64")
CALLS: dict[str, Callable[[Hooks], object]] = {
    "resolve_image": lambda hooks: hooks.resolve_image(REFERENCE, PLATFORM),
    "resolve_blob": lambda hooks: hooks.resolve_blob(SHELF, DESCRIPTOR),
    "open_store": lambda hooks: open_store(hooks, SHELF),
}


class TestKeychain:
    @pytest.mark.parametrize("name", CALLS)
    def test_is_bound_to_the_reference(self, name: str) -> None:
        asked: list[tuple[str, Reference]] = []

        def get_credentials(host: str, reference: Reference) -> Credentials:
            asked.append((host, reference))
            return Credentials("me", "secret")

        found: list[tuple[Reference, Credentials]] = []

        def ask(reference: Reference, keychain: Callable[[str], Credentials]) -> object:
            found.append((reference, keychain("other.test")))
            return any_of(name)

        hooks = hooks_of(keychain=plugin(get_credentials=get_credentials), resolver=plugin(**{name: ask}))
        CALLS[name](hooks)
        ((reference, credentials),) = found
        assert credentials.username == "me"
        assert asked == [("other.test", reference)]

    def test_image_beside_is_asked_for_with_the_credentials_of_the_first(self) -> None:
        asked: list[Reference] = []

        def get_credentials(reference: Reference) -> None:
            asked.append(reference)

        keychain = plugin(get_credentials=get_credentials)
        resolver = plugin(
            resolve_image=lambda keychain: keychain("registry.test") or any_of("resolve_image"),
            resolve_blob=lambda keychain: keychain("registry.test") or any_of("resolve_blob"),
        )
        hooks = hooks_of(keychain=keychain, resolver=resolver)
        hooks.resolve_image(SHELF, PLATFORM, on_behalf_of=REFERENCE)
        hooks.resolve_blob(SHELF, DESCRIPTOR, on_behalf_of=REFERENCE)
        assert asked == [REFERENCE, REFERENCE]

    @pytest.mark.seed(2)
    def test_first_answer_wins(self) -> None:
        def keychain(*hosts: str, says: str) -> object:
            return plugin(get_credentials=lambda host: Credentials(says, "secret") if host in hosts else None)

        hooks = hooks_of(docker=keychain("a.test", says="docker"), kube=keychain("a.test", "b.test", says="kube"))
        found = {host: hooks.get_credentials(host, REFERENCE) for host in ("a.test", "b.test", "c.test")}
        assert {host: each and each.username for host, each in found.items()} == {
            "a.test": "docker",
            "b.test": "kube",
            "c.test": None,
        }

    def test_broken_keychain_ends_the_search(self) -> None:
        def fail() -> None:
            raise OSError("helper crashed")

        hooks = hooks_of(
            broken=plugin(get_credentials=fail),
            working=plugin(get_credentials=lambda: Credentials("me", "secret")),
            resolver=plugin(resolve_image=lambda keychain: keychain("registry.test")),
        )
        with pytest.raises(PluginError, match="plugin broken, lazylayer_get_credentials: OSError: helper crashed"):
            hooks.resolve_image(REFERENCE, PLATFORM)
