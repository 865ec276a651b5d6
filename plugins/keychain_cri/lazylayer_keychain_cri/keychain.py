"""The plugin: answer with the credentials that the proxy of `lazylayer cri-proxy` remembered.

The proxy is a process of its own, so that kubelet's image service does not end with a daemon that is
restarted; keychain and proxy meet in the files of `RememberedCredentials`.
"""

from __future__ import annotations

from lazylayer import hookimpl
from lazylayer.api.credentials import Credentials
from lazylayer.api.oci import Reference
from lazylayer.api.settings import Settings
from lazylayer.errors import PluginError, SkipPlugin
from lazylayer_keychain_cri.options import NAME, Options, open_store
from lazylayer_keychain_cri.remembered import RememberedCredentials, StoreError

__all__ = ["CriKeychain"]


class CriKeychain:
    """The plugin."""

    def __init__(self) -> None:
        self._store: RememberedCredentials | None = None

    @hookimpl
    def lazylayer_configure(self, settings: Settings, options: Options) -> None:
        """Take `[plugin.keychain_cri]`."""
        if not options.listen:
            raise SkipPlugin(f"[plugin.{NAME}] names no socket to listen on; set listen to use it")
        self._store = open_store(settings, options)

    @hookimpl
    def lazylayer_get_credentials(self, host: str, reference: Reference) -> Credentials | None:
        """Return the credentials that `reference` was pulled with, if they are for `host`."""
        if self._store is None:
            return None
        try:
            return self._store.find(host, reference)
        except StoreError as error:
            raise PluginError(
                f"{error}; remove it, and the next pull writes it anew",
                plugin=NAME,
                distribution="lazylayer-keychain-cri",
            ) from error
