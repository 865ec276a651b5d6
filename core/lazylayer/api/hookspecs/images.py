"""The hooks that find images and their bytes."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from typing import TYPE_CHECKING

from lazylayer import hookspec

if TYPE_CHECKING:
    import msgspec

    from lazylayer.api.cache import Cache, CachePurpose
    from lazylayer.api.credentials import Credentials, Keychain
    from lazylayer.api.oci import Descriptor, Platform, Reference, ResolvedImage
    from lazylayer.api.sources import BlobSource


@hookspec(firstresult=True)
def lazylayer_resolve_image(reference: Reference, platform: Platform, keychain: Keychain) -> ResolvedImage | None:
    """Find the manifest and config that `reference` names, for one platform.

    Stops at the first result that is not None; None means that this kind of reference is not yours.

    :param reference: the image, as the user named it; its `scheme` is empty for a registry.
    :param platform: which manifest of an index to choose (`lazylayer_manifests.choose_manifest`).
    :param keychain: `keychain(host)` returns credentials for a host, or None.
    :returns: the image; manifest and config were checked against their digests.

    Example::

        @hookimpl
        def lazylayer_resolve_image(reference, platform, keychain):
            return read_shelf(reference.repository, platform) if reference.scheme == "shelf" else None

    Threading and errors: raise NotFoundError, AuthenticationError, UnavailableError or FormatError.
    """


@hookspec(firstresult=True)
def lazylayer_resolve_blob(reference: Reference, descriptor: Descriptor, keychain: Keychain) -> BlobSource | None:
    """Give random access to the bytes of one blob of an image.

    Stops at the first result that is not None; None means that this kind of reference is not yours.

    :param reference: the image that the blob belongs to.
    :param descriptor: the blob. If its `size` is 0, it is unknown, and the source finds it out.
    :param keychain: `keychain(host)` returns credentials for a host, or None. Keep it, to call it again later.
    :returns: the source, ready to `fetch`. The core closes it.

    Example::

        @hookimpl
        def lazylayer_resolve_blob(reference, descriptor, keychain):
            return ShelfBlob(reference.repository, descriptor) if reference.scheme == "shelf" else None

    Threading and errors: raise NotFoundError, AuthenticationError or UnavailableError.
    """


@hookspec(firstresult=True)
def lazylayer_get_credentials(host: str, reference: Reference) -> Credentials | None:
    """Say how to authenticate to a registry host.

    Stops at the first result that is not None; None means that you know nothing of this host. An error ends
    the search, so that no request is sent anonymously because a keychain was broken.

    :param host: the registry as in the reference, `name[:port]`, with `docker.io` for Docker Hub.
    :param reference: the image that it is about.
    :returns: credentials for exactly this host.

    Example::

        @hookimpl
        def lazylayer_get_credentials(host, reference):
            password = vault.get(host)
            return Credentials(username="robot", password=password, source="vault") if password else None

    Threading and errors: asked once per resolve, and again after a refusal; answer from fresh data. Log no secret.
    """


@hookspec
def lazylayer_open_cache(purpose: CachePurpose, options: msgspec.Struct | None) -> Cache:
    """Open your cache for one purpose.

    Only the plugin that the configuration names is called.

    :param purpose: `chunks` (verified, uncompressed) or `ranges` (compressed); keep them apart.
    :param options: your options, as in `lazylayer_configure`.
    :returns: a cache, shared by all layers. The core closes it.

    Example::

        @hookimpl
        def lazylayer_open_cache(purpose, options):
            return MyCache(purpose, options.max_bytes)

    Threading and errors: an error here ends the start-up. A cache never fails a read.
    """
