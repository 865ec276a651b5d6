"""Resolve an image: its manifest for one platform and its config, both verified."""

from __future__ import annotations

from typing import NamedTuple

import httpx

from lazylayer.api.oci import (
    MAX_MANIFEST_SIZE,
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    Manifest,
    MediaType,
    Platform,
    Reference,
    ResolvedImage,
    sha256_digest,
)
from lazylayer.errors import FormatError, VerificationError
from lazylayer_manifests import choose_manifest, decode_config, decode_manifest_or_index
from lazylayer_resolver_registry.repository import Repository
from lazylayer_resolver_registry.route import Route

__all__ = ["resolve_image"]

_MAX_DEPTH = 4
"""Levels of nested indexes."""
_ACCEPT = {"Accept": ", ".join((*MediaType.MANIFESTS, *MediaType.INDEXES))}


def resolve_image(route: Route, reference: Reference, platform: Platform) -> ResolvedImage:
    """Return the image of `reference` for `platform`.

    Raises ResolveError, FormatError or VerificationError.
    """
    name, promised = reference.digest or reference.tag, reference.digest
    index: Index | None = None
    index_bytes = b""
    for _ in range(_MAX_DEPTH):
        found = _manifest(route, name, promised, str(reference))
        if isinstance(found.content, Index):
            if index is None:
                index, index_bytes = found.content, found.data
            name = promised = choose_manifest(found.content, platform, str(reference)).digest
            continue
        config, config_bytes = _config(route, found.content, f"{reference}, its config")
        return ResolvedImage(
            reference,
            found.digest,
            found.media_type,
            found.content,
            config,
            found.data,
            config_bytes,
            index,
            index_bytes,
        )
    raise FormatError(f"{reference}: indexes are nested more than {_MAX_DEPTH} levels deep")


class _Found(NamedTuple):
    content: Manifest | Index
    digest: Digest
    media_type: str
    data: bytes


def _manifest(route: Route, name: str, promised: str, what: str) -> _Found:
    """Fetch a manifest or index by tag, or by the digest `promised`, which any mirror may serve."""

    def ask(repository: Repository) -> _Found:
        data, headers = repository.get(f"manifests/{name}", _ACCEPT, MAX_MANIFEST_SIZE, what)
        digest = _verify(data, promised or headers.get("Docker-Content-Digest", ""), what)
        content = decode_manifest_or_index(data, what)
        return _Found(content, digest, content.media_type or _media_type(headers), data)

    return route.first("pull" if promised else "resolve", name, ask)


def _config(route: Route, manifest: Manifest, what: str) -> tuple[ImageConfig, bytes]:
    descriptor: Descriptor = manifest.config
    if descriptor.size > MAX_MANIFEST_SIZE:
        raise FormatError(f"{what}: {descriptor.size} bytes exceed the limit of {MAX_MANIFEST_SIZE}")

    def ask(repository: Repository) -> bytes:
        data, _ = repository.get(f"blobs/{descriptor.digest}", {}, MAX_MANIFEST_SIZE, what)
        _verify(data, descriptor.digest, what)
        return data

    data = route.first("pull", descriptor.digest, ask)
    return decode_config(data, what), data


def _verify(data: bytes, promised: str, what: str) -> Digest:
    digest = sha256_digest(data)
    # A registry may send another kind of digest for a tag, which we cannot check.
    if promised.startswith("sha256:") and promised != digest:
        raise VerificationError(f"{what}: expected digest {promised}, the registry sent {digest}")
    return digest


def _media_type(headers: httpx.Headers) -> str:
    kind = str(headers.get("Content-Type", "")).partition(";")[0].strip()
    return kind if kind in MediaType.MANIFESTS else MediaType.OCI_MANIFEST
