"""Resolving an image: its manifest for one platform, and its config, each checked against its digest."""

from __future__ import annotations

import httpx

from lazylayer.errors import FormatError, VerificationError
from lazylayer.oci import (
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
    choose_manifest,
    decode_config,
    decode_manifest_or_index,
    sha256_digest,
)
from lazylayer_resolver_registry.repository import Repository

__all__ = ["resolve_image"]

_MAX_DEPTH = 4
"""Indexes in indexes."""
_ACCEPT = {"Accept": ", ".join((*MediaType.MANIFESTS, *MediaType.INDEXES))}


def resolve_image(repository: Repository, reference: Reference, platform: Platform) -> ResolvedImage:
    """The image that `reference` names, for `platform`. Raises ResolveError, FormatError or VerificationError."""
    name, promised = reference.digest or reference.tag, reference.digest
    for _ in range(_MAX_DEPTH):
        data, headers = repository.get(f"manifests/{name}", _ACCEPT, MAX_MANIFEST_SIZE, str(reference))
        digest = _verify(data, promised or headers.get("Docker-Content-Digest", ""), str(reference))
        found = decode_manifest_or_index(data, str(reference))
        if isinstance(found, Index):
            name = promised = choose_manifest(found, platform, str(reference)).digest
            continue
        config, config_bytes = _config(repository, found, reference)
        media_type = found.media_type or _media_type(headers)
        return ResolvedImage(reference, digest, media_type, found, config, data, config_bytes)
    raise FormatError(f"{reference}: indexes lie in indexes, more than {_MAX_DEPTH} deep")


def _config(repository: Repository, manifest: Manifest, reference: Reference) -> tuple[ImageConfig, bytes]:
    descriptor: Descriptor = manifest.config
    what = f"{reference}, its config"
    if descriptor.size > MAX_MANIFEST_SIZE:
        raise FormatError(f"{what} has {descriptor.size} bytes; at most {MAX_MANIFEST_SIZE} are believed")
    data, _ = repository.get(f"blobs/{descriptor.digest}", {}, MAX_MANIFEST_SIZE, what)
    _verify(data, descriptor.digest, what)
    return decode_config(data, what), data


def _verify(data: bytes, promised: str, what: str) -> Digest:
    digest = sha256_digest(data)
    # A registry may name another kind of digest for a tag; that is no promise that we could check.
    if promised.startswith("sha256:") and promised != digest:
        raise VerificationError(f"{what}: the registry sent something with the digest {digest}, not {promised}")
    return digest


def _media_type(headers: httpx.Headers) -> str:
    kind = str(headers.get("Content-Type", "")).partition(";")[0].strip()
    return kind if kind in MediaType.MANIFESTS else MediaType.OCI_MANIFEST
