"""The plugin: its hooks, and the state they share."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from lazylayer import hookimpl
from lazylayer.api.credentials import Keychain
from lazylayer.api.oci import Descriptor, Platform, Reference, ResolvedImage
from lazylayer.api.settings import Settings
from lazylayer.api.sources import BlobSource
from lazylayer.errors import UnavailableError
from lazylayer_building import ImageStore
from lazylayer_resolver_registry.options import Options

if TYPE_CHECKING:
    from lazylayer_resolver_registry.authorization import Authorizer
    from lazylayer_resolver_registry.endpoints import Endpoint
    from lazylayer_resolver_registry.hosts import Hosts
    from lazylayer_resolver_registry.route import Cooldowns, Route
    from lazylayer_resolver_registry.transport import Transport

__all__ = ["ResolverRegistry"]

_MOST_AUTHORIZERS = 1000


class ResolverRegistry:
    """Images and blobs in registries. One instance per program shares connections and tokens.

    `_lock` guards the transport and the authorizers. Never hold it during a request.
    """

    options_table = "resolver"

    def __init__(self) -> None:
        self._options = Options()
        self._plain_http: tuple[str, ...] = ()
        self._hosts: Hosts | None = None
        self._lock = threading.Lock()
        self._transport: Transport | None = None
        self._interrupted = False
        self._cooldowns: Cooldowns | None = None
        self._authorizers: dict[tuple[Endpoint, str, str], Authorizer] = {}

    @hookimpl
    def lazylayer_configure(self, settings: Settings, options: Options) -> None:
        """Store `[plugin.resolver_registry]`, `[resolver]` and `resolve.plain_http`."""
        self._options = options
        self._plain_http = settings.resolve.plain_http
        self._hosts = None
        if options.resolver.hosts:
            self._known_hosts()  # report mistakes at start-up

    @hookimpl
    def lazylayer_resolve_image(
        self, reference: Reference, platform: Platform, keychain: Keychain
    ) -> ResolvedImage | None:
        """Resolve an image in a registry; return None for references with a scheme."""
        if reference.scheme:
            return None
        from lazylayer_resolver_registry.images import resolve_image

        return resolve_image(self._route(reference, keychain, "pull"), reference, platform)

    @hookimpl
    def lazylayer_resolve_blob(
        self, reference: Reference, descriptor: Descriptor, keychain: Keychain
    ) -> BlobSource | None:
        """Open a blob in a registry. Sends no request unless the size is unknown."""
        if reference.scheme:
            return None
        from lazylayer_resolver_registry.mirrored import MirroredBlob
        from lazylayer_resolver_registry.source import RegistryBlob

        route = self._route(reference, keychain, "pull")
        places = route.candidates("pull")
        return RegistryBlob(places[0], descriptor) if len(places) == 1 else MirroredBlob(route, descriptor)

    @hookimpl
    def lazylayer_open_store(self, reference: Reference, keychain: Keychain) -> ImageStore | None:
        """Open a repository for writing, at the registry itself if it has the capability `push`."""
        if reference.scheme:
            return None
        from lazylayer_resolver_registry.store import RegistryStore

        return RegistryStore(self._route(reference, keychain, "pull,push").candidates("push")[-1])

    @hookimpl
    def lazylayer_daemon_started(self) -> None:
        """Import the modules of the read path and load the system's certificates."""
        import lazylayer_resolver_registry.images
        import lazylayer_resolver_registry.mirrored
        import lazylayer_resolver_registry.source  # noqa: F401

        self._open_transport().warm_up()

    @hookimpl
    def lazylayer_interrupt(self) -> None:
        """Close all connections. Requests in flight, and later ones, raise UnavailableError."""
        with self._lock:
            self._interrupted = True
            transport = self._transport
        if transport is not None:
            transport.close()

    @hookimpl
    def lazylayer_close(self) -> None:
        """Close all connections, as `lazylayer_interrupt` does."""
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _known_hosts(self) -> Hosts:
        from lazylayer_resolver_registry.hosts import Hosts

        if self._hosts is None:
            self._hosts = Hosts(self._options.resolver, self._plain_http)
        return self._hosts

    def _route(self, reference: Reference, keychain: Keychain, actions: str) -> Route:
        """Return the hosts that serve a repository, from the current configuration."""
        from lazylayer_resolver_registry.repository import Repository
        from lazylayer_resolver_registry.route import Cooldowns, Route
        from lazylayer_resolver_registry.steps import step

        endpoints = self._known_hosts().endpoints(reference.host)
        step(
            "{host} is served by {endpoints}",
            host=reference.host,
            endpoints=", then ".join(each.describe() for each in endpoints),
        )
        transport = self._open_transport()
        with self._lock:
            if self._cooldowns is None:
                self._cooldowns = Cooldowns(self._options.mirror_rest)
            authorizers = [self._authorizer(transport, each, reference, actions) for each in endpoints]
        name = reference.repository
        return Route([Repository(each.client, name, each, keychain) for each in authorizers], self._cooldowns)

    def _open_transport(self) -> Transport:
        from lazylayer_resolver_registry.transport import Transport

        with self._lock:
            if self._transport is None:
                if self._interrupted:
                    raise UnavailableError("lazylayer is ending")
                self._transport = Transport(self._options)
            return self._transport

    def _authorizer(self, transport: Transport, endpoint: Endpoint, reference: Reference, actions: str) -> Authorizer:
        """Return the authorizer of an image, shared by its layers; each image has its own credentials."""
        from lazylayer_resolver_registry.authorization import Authorizer
        from lazylayer_resolver_registry.client import EndpointClient

        key = (endpoint, str(reference), actions)
        found = self._authorizers.pop(key, None)
        if found is None:
            scope = f"repository:{reference.repository}:{actions}"
            found = Authorizer(EndpointClient(transport, endpoint), scope)
            while len(self._authorizers) >= _MOST_AUTHORIZERS:
                del self._authorizers[next(iter(self._authorizers))]
        self._authorizers[key] = found
        return found
