"""The plugin: answers from the credentials that the proxy remembered, and adds `lazylayer cri-proxy`.

The proxy is a process of its own, so that kubelet's image service does not end with a daemon that is
restarted; keychain and proxy meet in the files of `RememberedCredentials`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click
import msgspec

from lazylayer import hookimpl
from lazylayer.errors import PluginError, SkipPlugin
from lazylayer.oci import Reference
from lazylayer.settings import Settings
from lazylayer.source import Credentials
from lazylayer_keychain_cri.remembered import RememberedCredentials, StoreError

__all__ = ["CriKeychain", "Options", "open_store"]

_NAME = "keychain_cri"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[plugin.keychain_cri]`; `listen` turns the plugin on."""

    listen: str = ""
    """The socket of the proxy, which kubelet is told of (`--image-service-endpoint`)."""
    backend: str = "/run/containerd/containerd.sock"
    """The socket of the real image service."""
    max_entries: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    """How many references are remembered; the oldest are dropped."""


def open_store(settings: Settings, options: Options) -> RememberedCredentials:
    """Where proxy and keychain of these settings meet."""
    return RememberedCredentials(Path(settings.root) / _NAME, options.max_entries)


class CriKeychain:
    """The plugin."""

    def __init__(self) -> None:
        self._store: RememberedCredentials | None = None

    @hookimpl
    def lazylayer_configure(self, settings: Settings) -> None:
        """Takes `[plugin.keychain_cri]`."""
        options = settings.plugin_options(_NAME, Options)
        if not options.listen:
            raise SkipPlugin(f"[plugin.{_NAME}] names no socket to listen on; set listen to use it")
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
            from lazylayer.cli import load_settings
            from lazylayer_keychain_cri.command import serve_proxy

            serve_proxy(load_settings(context))

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
                plugin=_NAME,
                distribution="lazylayer-keychain-cri",
            ) from error
