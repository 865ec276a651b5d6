"""Checks of an installed keychain that need not know its logins, for `lazylayer plugins check`.

The whole kit is `lazylayer_testing.keychain`, for which a plugin's author provides a store.
"""

from __future__ import annotations

import uuid

import pytest

from lazylayer.api.credentials import Credentials
from lazylayer.api.oci import Reference
from lazylayer.plugin.hooks import Hooks
from lazylayer_testing.checks.plugin import ConfiguredPlugin


class TestKeychain(ConfiguredPlugin):
    """Asks the plugin, with the options that are configured."""

    def test_unknown_host_is_no_answer(self, hooks: Hooks) -> None:
        """No keychain has credentials for a host that cannot exist."""
        host = f"{uuid.uuid4().hex}.invalid"
        assert hooks.get_credentials(host, Reference(repository="image", host=host, tag="1")) is None

    @pytest.mark.parametrize("host", ["docker.io", "ghcr.io", "localhost:5000", "[::1]:5000"])
    def test_answer_is_complete_and_hides_its_secret(self, hooks: Hooks, host: str) -> None:
        """An answer for a popular host is usable, names its source, and hides its secret."""
        found = hooks.get_credentials(host, Reference(repository="library/debian", host=host, tag="1"))
        if found is None:
            return
        assert isinstance(found, Credentials)
        secrets = [each for each in (found.password, found.identity_token, found.registry_token) if each]
        assert secrets
        assert found.source
        assert not any(secret in f"{found!r} {found} {found.source}" for secret in secrets)
