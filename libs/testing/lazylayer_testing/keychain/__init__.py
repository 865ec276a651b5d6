"""The conformance kit for keychains: what every keychain must do, as tests that a plugin's author runs.

Subclass `KeychainConformance` in a test module of the plugin, and override one fixture::

    import pytest
    from lazylayer_testing.keychain import KeychainConformance

    class MyStore:
        def __init__(self, vault):
            self.vault = vault
            self.plugin = MyKeychain(vault.address)

        def put(self, logins):
            self.vault.replace_all(logins)

        def damage(self):
            self.vault.stop()
            return True

    class TestMyKeychain(KeychainConformance):
        @pytest.fixture
        def store(self, vault):
            return MyStore(vault)

The kit asks the plugin as the core does, through `lazylayer.plugin.hooks.Hooks`.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import pytest
from loguru import logger

from lazylayer.api.credentials import Credentials
from lazylayer.api.oci import Reference
from lazylayer.errors import LazylayerError
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.registry import make_manager

__all__ = ["KeychainConformance", "KeychainStore", "recorded_log"]

_HOST = "registry.example.com"
_PASSWORD = "a:secret/with=odd+characters"  # noqa: S105 - not one
_LOGIN = Credentials(username="ann", password=_PASSWORD)
_OTHERS = (
    "example.com",
    "a.registry.example.com",
    "registry.example.com.evil.test",
    "evil-registry.example.com",
    "registry.example.com:5000",
    "registry-example.com",
    "docker.io",
    "127.0.0.1:5000",
    "[::1]:5000",
)


class KeychainStore(Protocol):
    """A place where the keychain under test finds its logins, and the keychain itself."""

    @property
    def plugin(self) -> object:
        """The plugin, configured to read this store."""

    def put(self, logins: Mapping[str, Credentials]) -> None:
        """Replace all that the store holds by `logins`, by host. From its return on, the plugin answers with them."""

    def damage(self) -> bool:
        """Break the store, so that the plugin cannot read it. Return False if that is impossible."""


class KeychainConformance:
    """The checks of every keychain. Override `store`."""

    @pytest.fixture
    def store(self) -> KeychainStore:
        """To be overridden: an empty store, and the keychain that reads it."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture store")

    @pytest.fixture
    def hooks(self, store: KeychainStore) -> Iterator[Hooks]:
        """The plugin as the core asks it; closed at the end."""
        manager = make_manager()
        manager.register(store.plugin, "keychain")
        hooks = Hooks(manager)
        yield hooks
        hooks.close()

    @pytest.fixture
    def log(self, store: KeychainStore) -> Iterator[list[str]]:
        """The lines that the plugin logs, at the most verbose level."""
        with recorded_log(store.plugin) as lines:
            yield lines

    # --- finding ---------------------------------------------------------------------------------

    def test_unknown_host_is_no_answer(self, store: KeychainStore, hooks: Hooks) -> None:
        """A host that the store does not have is None, in an empty store and beside others."""
        store.put({})
        assert _ask(hooks, _HOST) is None
        store.put({"other.example.com": _LOGIN})
        assert _ask(hooks, _HOST) is None

    @pytest.mark.parametrize("host", [_HOST, "registry.example.com:5000", "docker.io", "127.0.0.1:5000", "[::1]:5000"])
    def test_known_host_is_answered(self, store: KeychainStore, hooks: Hooks, host: str) -> None:
        """Name and password are found, exactly as they were put."""
        store.put({host: _LOGIN})
        found = _ask(hooks, host)
        assert found is not None
        assert (found.username, found.password) == ("ann", _PASSWORD)

    def test_answer_says_where_it_was_found(self, store: KeychainStore, hooks: Hooks) -> None:
        """`source` is for messages: it is set, short, and holds no secret."""
        store.put({_HOST: _LOGIN})
        found = _ask(hooks, _HOST)
        assert found is not None
        assert 0 < len(found.source) < 500
        assert _PASSWORD not in found.source

    @pytest.mark.parametrize("host", _OTHERS)
    def test_others_get_nothing(self, store: KeychainStore, hooks: Hooks, host: str) -> None:
        """Credentials are for exactly their host: not for its parents, neighbours, ports or lookalikes."""
        store.put({_HOST: _LOGIN})
        assert _ask(hooks, host) is None

    def test_every_host_has_its_own(self, store: KeychainStore, hooks: Hooks) -> None:
        """Many hosts are told apart."""
        hosts = [f"{name}.example.com{port}" for name in "abc" for port in ("", ":443", ":5000")]
        store.put({host: Credentials(username="ann", password=f"of {host}") for host in hosts})
        found = [_ask(hooks, host) for host in hosts]
        assert [each and each.password for each in found] == [f"of {host}" for host in hosts]

    def test_password_may_be_long_and_odd(self, store: KeychainStore, hooks: Hooks) -> None:
        """Tokens of some kilobytes and any character are passwords too."""
        password = "ä€☃:\"'\\$ " + "0123456789abcdef" * 500
        store.put({_HOST: Credentials(username="ann", password=password)})
        found = _ask(hooks, _HOST)
        assert found is not None
        assert found.password == password

    # --- changes ---------------------------------------------------------------------------------

    def test_change_counts(self, store: KeychainStore, hooks: Hooks) -> None:
        """A new password is found, and a removed login is not."""
        for password in ("old", "new"):
            store.put({_HOST: Credentials(username="ann", password=password)})
            found = _ask(hooks, _HOST)
            assert found is not None
            assert found.password == password
        store.put({})
        assert _ask(hooks, _HOST) is None

    def test_threads_ask_at_once(self, store: KeychainStore, hooks: Hooks) -> None:
        """Eight threads get their own answers."""
        hosts = [f"host-{number}.example.com" for number in range(8)]
        store.put({host: Credentials(username=host, password=_PASSWORD) for host in hosts})
        with ThreadPoolExecutor(len(hosts)) as pool:
            found = list(pool.map(lambda host: [_ask(hooks, host) for _ in range(5)], hosts))
        assert [{each and each.username for each in answers} for answers in found] == [{host} for host in hosts]

    # --- secrets and troubles ----------------------------------------------------------------------

    def test_secret_is_shown_nowhere(
        self, store: KeychainStore, hooks: Hooks, log: list[str], capfd: pytest.CaptureFixture[str]
    ) -> None:
        """No password in logs at any level, in what is printed, or in the text of the answer."""
        store.put({_HOST: _LOGIN})
        found = _ask(hooks, _HOST)
        _ask(hooks, "other.example.com")
        assert found is not None
        assert _PASSWORD not in f"{found} {found!r} {log} {capfd.readouterr()}"

    def test_damage_is_an_error(self, store: KeychainStore, hooks: Hooks, log: list[str]) -> None:
        """A broken store is an error, which says something and no secret; never None, nor a stale answer."""
        store.put({_HOST: _LOGIN})
        if not store.damage():
            pytest.skip("this store cannot break")
        with pytest.raises(LazylayerError) as failure:
            _ask(hooks, "new.example.com")
        assert len(str(failure.value)) > len("plugin keychain: ")
        assert _PASSWORD not in f"{failure.value} {failure.value!r} {failure.value.__cause__} {log}"


def _ask(hooks: Hooks, host: str) -> Credentials | None:
    found = hooks.get_credentials(host, Reference(repository="team/app", host=host, tag="1"))
    assert found is None or isinstance(found, Credentials)
    if found is not None:
        assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301 - our own
        assert found.password or found.identity_token or found.registry_token, "an answer without a secret"
    return found


@contextmanager
def recorded_log(plugin: object) -> Iterator[list[str]]:
    """Record what a plugin's package logs meanwhile, at every level, with the values of its variables."""
    package = type(plugin).__module__.partition(".")[0]
    lines: list[str] = []
    logger.enable(package)
    sink = logger.add(lambda line: lines.append(str(line)), level=0, backtrace=True, diagnose=True)
    try:
        yield lines
    finally:
        logger.remove(sink)
        logger.disable(package)
