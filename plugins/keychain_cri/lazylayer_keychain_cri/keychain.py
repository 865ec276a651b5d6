"""The plugin: answers from the credentials that the proxy remembered, and adds `lazylayer cri-proxy`.

The proxy is a process of its own, so that kubelet's image service does not end with a daemon that is
restarted; keychain and proxy meet in the files of `RememberedCredentials`.
"""

from __future__ import annotations

import click

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
    def lazylayer_add_commands(self, cli: click.Group) -> None:
        """Adds `lazylayer cri-proxy`."""

        @cli.command("cri-proxy", short_help="Serve kubelet's image service and remember its credentials.")
        @click.pass_context
        def cri_proxy(context: click.Context) -> None:
            """Serve the CRI image service for kubelet, and remember the credentials of its pulls.

            Passes every request on to the real image service. Point kubelet at the socket that
            [plugin.keychain_cri] listen names, with --image-service-endpoint.
            """
            from lazylayer.cli import load_options, load_settings
            from lazylayer_keychain_cri.command import serve_proxy

            serve_proxy(load_settings(context), load_options(context, NAME, Options))

    @hookimpl
    def lazylayer_get_credentials(self, host: str, reference: Reference) -> Credentials | None:
        """The credentials with which `reference` was pulled, for the host that they were for."""
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
