"""The kit for keychains passes one that is right, and each of these wrong ones fails one of its checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from loguru import logger

from lazylayer import hookimpl
from lazylayer.api.credentials import Credentials
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.registry import make_manager
from lazylayer_logins.dockerconfig import canonical_host
from lazylayer_testing.keychain import KeychainConformance, KeychainStore, recorded_log


class MemoryKeychain:
    def __init__(self) -> None:
        self.logins: dict[str, Credentials] | None = {}

    @hookimpl
    def lazylayer_get_credentials(self, host: str) -> Credentials | None:
        assert self.logins is not None, "the store is broken"
        return self.find(host, self.logins)

    def find(self, host: str, logins: Mapping[str, Credentials]) -> Credentials | None:
        return logins.get(canonical_host(host))


class MemoryStore:
    def __init__(self, plugin: MemoryKeychain) -> None:
        self.plugin = plugin

    def put(self, logins: Mapping[str, Credentials]) -> None:
        found = {host: Credentials(each.username, each.password, source="memory") for host, each in logins.items()}
        self.plugin.logins = found

    def damage(self) -> bool:
        self.plugin.logins = None
        return True


class TestMemoryKeychain(KeychainConformance):
    @pytest.fixture
    def store(self) -> KeychainStore:
        return MemoryStore(MemoryKeychain())


class BySuffix(MemoryKeychain):
    def find(self, host: str, logins: Mapping[str, Credentials]) -> Credentials | None:
        return next((each for name, each in logins.items() if host.endswith(name)), None)


class WithoutPort(MemoryKeychain):
    def find(self, host: str, logins: Mapping[str, Credentials]) -> Credentials | None:
        return logins.get(host) or logins.get(host.partition(":")[0])


class ForEverybody(MemoryKeychain):
    def find(self, host: str, logins: Mapping[str, Credentials]) -> Credentials | None:
        return next(iter(logins.values()), None)


class Stale(MemoryKeychain):
    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Credentials] = {}

    def find(self, host: str, logins: Mapping[str, Credentials]) -> Credentials | None:
        return self.seen.setdefault(host, logins[host]) if host in logins else self.seen.get(host)


class Talkative(MemoryKeychain):
    def find(self, host: str, logins: Mapping[str, Credentials]) -> Credentials | None:
        found = logins.get(host)
        logger.debug("password of {host} is {password}", host=host, password=found and found.password)
        return found


class Nameless(MemoryKeychain):
    def find(self, host: str, logins: Mapping[str, Credentials]) -> Credentials | None:
        found = logins.get(host)
        return found and Credentials(found.username, found.password)


class Empty(MemoryKeychain):
    def find(self, host: str, logins: Mapping[str, Credentials]) -> Credentials | None:
        return Credentials(source="memory")


class Silent(MemoryKeychain):
    @hookimpl
    def lazylayer_get_credentials(self, host: str) -> Credentials | None:
        return self.find(host, self.logins or {})


Check = Callable[[KeychainConformance, MemoryStore, Hooks], None]
KIT = KeychainConformance

WRONG: dict[type[MemoryKeychain], Check] = {
    BySuffix: lambda kit, store, hooks: kit.test_others_get_nothing(store, hooks, "evil-registry.example.com"),
    WithoutPort: lambda kit, store, hooks: kit.test_others_get_nothing(store, hooks, "registry.example.com:5000"),
    ForEverybody: KIT.test_unknown_host_is_no_answer,
    Stale: KIT.test_change_counts,
    Nameless: KIT.test_answer_says_where_it_was_found,
    Empty: lambda kit, store, hooks: kit.test_known_host_is_answered(store, hooks, "registry.example.com"),
    Silent: lambda kit, store, hooks: kit.test_damage_is_an_error(store, hooks, []),
}


def hooks_of(store: MemoryStore) -> Hooks:
    manager = make_manager()
    manager.register(store.plugin, "keychain")
    return Hooks(manager)


@pytest.mark.parametrize("keychain", WRONG, ids=lambda each: each.__name__)
def test_wrong_keychain_fails(keychain: type[MemoryKeychain]) -> None:
    store = MemoryStore(keychain())
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        WRONG[keychain](KeychainConformance(), store, hooks_of(store))


def test_talkative_keychain_fails(capfd: pytest.CaptureFixture[str]) -> None:
    store = MemoryStore(Talkative())
    with recorded_log(store.plugin) as log, pytest.raises(AssertionError):
        KeychainConformance().test_secret_is_shown_nowhere(store, hooks_of(store), log, capfd)
