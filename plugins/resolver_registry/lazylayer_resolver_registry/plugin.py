"""The plugin: which of its parts answers which hook."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from lazylayer import hookimpl
from lazylayer.building import ImageStore
from lazylayer.oci import Descriptor, Platform, Reference, ResolvedImage
from lazylayer.settings import Settings
from lazylayer.source import BlobSource, Keychain
from lazylayer_resolver_registry.options import NAME, Options

if TYPE_CHECKING:
    from lazylayer_resolver_registry.authorization import Authorizer
    from lazylayer_resolver_registry.repository import Repository
    from lazylayer_resolver_registry.transport import Transport

__all__ = ["ResolverRegistry"]


class ResolverRegistry:
    """Images and blobs in registries. One instance per program, which shares connections and tokens.

    Its lock guards the two memories; nothing is requested while it is held.
    """

    def __init__(self) -> None:
        self._options = Options()
        self._plain_http: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._transport: Transport | None = None
        self._authorizers: dict[tuple[str, str, str], Authorizer] = {}

    @hookimpl
    def lazylayer_configure(self, settings: Settings) -> None:
        """Takes `[plugin.resolver_registry]` and `resolve.plain_http`."""
        self._options = settings.plugin_options(NAME, Options)
        self._plain_http = frozenset(settings.resolve.plain_http)

    @hookimpl
    def lazylayer_resolve_image(
        self, reference: Reference, platform: Platform, keychain: Keychain
    ) -> ResolvedImage | None:
        """The image, if the reference is one of a registry."""
        if reference.scheme:
            return None
        from lazylayer_resolver_registry.images import resolve_image

        return resolve_image(self._repository(reference, keychain, "pull"), reference, platform)

    @hookimpl
    def lazylayer_resolve_blob(
        self, reference: Reference, descriptor: Descriptor, keychain: Keychain
    ) -> BlobSource | None:
        """The blob, if the reference is one of a registry. Asks it nothing unless the size is unknown."""
        if reference.scheme:
            return None
        from lazylayer_resolver_registry.source import RegistryBlob

        return RegistryBlob(self._repository(reference, keychain, "pull"), descriptor)

    @hookimpl
    def lazylayer_open_store(self, reference: Reference, keychain: Keychain) -> ImageStore | None:
        """The repository to write to, if the reference is one of a registry."""
        if reference.scheme:
            return None
        from lazylayer_resolver_registry.store import RegistryStore

        return RegistryStore(self._repository(reference, keychain, "pull,push"))

    @hookimpl
    def lazylayer_close(self) -> None:
        """Closes all connections."""
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _repository(self, reference: Reference, keychain: Keychain, actions: str) -> Repository:
        from lazylayer_resolver_registry.authorization import Authorizer
        from lazylayer_resolver_registry.repository import Repository
        from lazylayer_resolver_registry.transport import Transport
        from lazylayer_resolver_registry.urls import base_url

        registry = base_url(reference.host, reference.host in self._plain_http)
        scope = f"repository:{reference.repository}:{actions}"
        with self._lock:
            if self._transport is None:
                self._transport = Transport(self._options)
            key = (str(registry), reference.host, scope)
            authorizer = self._authorizers.get(key)
            if authorizer is None:
                authorizer = Authorizer(self._transport, registry, reference.host, scope)
                self._authorizers[key] = authorizer
            return Repository(self._transport, registry, reference.repository, authorizer, keychain)
