"""Find an image in a layout, by tag, by digest, or as the only one."""

from __future__ import annotations

from lazylayer.api.oci import (
    MAX_MANIFEST_SIZE,
    Descriptor,
    Digest,
    Index,
    Manifest,
    MediaType,
    Platform,
    Reference,
    ResolvedImage,
    parse_digest,
    sha256_digest,
)
from lazylayer.errors import FormatError, NotFoundError, VerificationError
from lazylayer_manifests import choose_manifest, decode_config, decode_manifest_or_index
from lazylayer_resolver_layout.files import LayoutFiles, blob_name

__all__ = ["REFERENCE_NAME", "find_image"]

REFERENCE_NAME = "org.opencontainers.image.ref.name"
"""The annotation that holds an image's tag in `index.json`."""

_MAX_NESTING = 4


def find_image(files: LayoutFiles, reference: Reference, platform: Platform) -> ResolvedImage:
    """Return the image of `reference` for one platform, with a verified manifest and config.

    Raises NotFoundError, UnavailableError, FormatError or VerificationError.
    """
    digest, data = _find_manifest(files, reference, platform)
    found = decode_manifest_or_index(data, str(reference))
    index, index_bytes = (found, data) if isinstance(found, Index) else (None, b"")
    for _ in range(_MAX_NESTING):
        if isinstance(found, Manifest):
            break
        descriptor = choose_manifest(found, platform, str(reference))
        digest, data = descriptor.digest, _read_blob(files, descriptor.digest)
        found = decode_manifest_or_index(data, f"{reference}: {digest}")
    if not isinstance(found, Manifest):
        raise FormatError(f"{reference}: indexes are nested more than {_MAX_NESTING} levels deep")
    config = _read_blob(files, found.config.digest)
    return ResolvedImage(
        reference=reference,
        digest=digest,
        media_type=found.media_type or MediaType.OCI_MANIFEST,
        manifest=found,
        config=decode_config(config, f"{reference}: config {found.config.digest}"),
        manifest_bytes=data,
        config_bytes=config,
        index=index,
        index_bytes=index_bytes,
    )


def _find_manifest(files: LayoutFiles, reference: Reference, platform: Platform) -> tuple[Digest, bytes]:
    if reference.digest:
        digest = parse_digest(reference.digest)
    else:
        digest = _choose(_read_index(files), reference, platform).digest
    return digest, _read_blob(files, digest)


def _read_index(files: LayoutFiles) -> Index:
    index = decode_manifest_or_index(files.read("index.json", MAX_MANIFEST_SIZE), f"{files.path}/index.json")
    if not isinstance(index, Index):
        raise FormatError(f"{files.path}/index.json: expected an index, found a manifest")
    return index


def _choose(index: Index, reference: Reference, platform: Platform) -> Descriptor:
    if reference.tag:
        named = [each for each in index.manifests if _tag(each) == reference.tag]
        if not named:
            raise NotFoundError(f"{reference}: no tag {reference.tag!r}; the layout has {_list_tags(index)}")
        if len(named) == 1:
            return named[0]
        return choose_manifest(Index(named), platform, str(reference))
    if len(index.manifests) == 1:
        return index.manifests[0]
    if len({_tag(each) for each in index.manifests}) > 1:
        raise NotFoundError(f"{reference}: the layout has several images; add one of the tags {_list_tags(index)}")
    return choose_manifest(index, platform, str(reference))


def _tag(descriptor: Descriptor) -> str:
    return descriptor.annotations.get(REFERENCE_NAME, "")


def _list_tags(index: Index) -> str:
    tags = sorted({_tag(each) for each in index.manifests} - {""})
    return ", ".join(tags[:20]) + (" …" if len(tags) > 20 else "") if tags else "no tags"


def _read_blob(files: LayoutFiles, digest: Digest) -> bytes:
    data = files.read(blob_name(digest), MAX_MANIFEST_SIZE)
    if sha256_digest(data) != digest:
        raise VerificationError(f"{files.path}/{blob_name(digest)}: damaged: wrong digest; copy it again")
    return data
