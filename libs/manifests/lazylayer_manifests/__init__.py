"""Decode image manifests, indexes and configs from outside, and choose the manifest for a platform.

Sizes are bounded before anything is decoded.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lazylayer.api.decoding import decode_json
from lazylayer.api.oci import MAX_MANIFEST_SIZE, Descriptor, ImageConfig, Index, Manifest, MediaType, Platform
from lazylayer.errors import FormatError, NotFoundError

__all__ = ["choose_manifest", "decode_config", "decode_manifest_or_index", "images_of"]


def decode_manifest_or_index(data: bytes, what: str) -> Manifest | Index:
    """Decode a manifest or index from JSON; `what` names it in errors.

    Raises FormatError for anything else, Docker's schema 1 included. More than MAX_MANIFEST_SIZE
    bytes are an error.
    """
    if len(data) > MAX_MANIFEST_SIZE:
        raise FormatError(f"{what}: a manifest of {len(data)} bytes is larger than {MAX_MANIFEST_SIZE}")
    try:
        fields = decode_json(data, dict[str, msgspec.Raw])
        if "manifests" in fields:
            return decode_json(data, Index)
        if "layers" in fields and "config" in fields:
            return decode_json(data, Manifest)
    except FormatError as error:
        raise FormatError(f"{what}: not a manifest: {error}") from error
    if "fsLayers" in fields:
        raise FormatError(f"{what}: a Docker schema 1 manifest, which has no layer digests to trust; push it again")
    raise FormatError(f"{what}: neither a manifest nor an index")


def decode_config(data: bytes, what: str) -> ImageConfig:
    """Decode an image config from JSON; `what` names it in errors. Raises FormatError."""
    if len(data) > MAX_MANIFEST_SIZE:
        raise FormatError(f"{what}: an image config of {len(data)} bytes is larger than {MAX_MANIFEST_SIZE}")
    try:
        fields = decode_json(data, dict[str, Any])
        rootfs = fields.get("rootfs")
        if isinstance(rootfs, dict):
            fields["rootfs"] = _without_nulls(rootfs)
        return msgspec.convert(_without_nulls(fields), ImageConfig)
    except (FormatError, msgspec.ValidationError, RecursionError) as error:
        raise FormatError(f"{what}: not an image config: {error}") from error


def _without_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out fields that are null: Go writes its empty lists so."""
    return {key: value for key, value in fields.items() if value is not None}


def images_of(index: Index) -> list[Descriptor]:
    """Return the entries of an index that are images, or indexes of images.

    Attestations are left out, and artifacts: the indexes of SOCI, for one, which say for which platform they are.
    """
    return [
        each
        for each in index.manifests
        if each.media_type in MediaType.MANIFESTS + MediaType.INDEXES
        and (each.platform is None or each.platform.os != "unknown")
        and not each.artifact_type
    ]


def choose_manifest(index: Index, wanted: Platform, what: str) -> Descriptor:
    """Return the manifest of an index that fits `wanted` best; `what` names the index in errors.

    Operating system and architecture must be equal. Among those, an equal variant comes first,
    then one without a variant, then any; an empty platform takes the first that there is. Entries
    that are not images (attestations among them) are passed over. Raises NotFoundError, which lists the
    platforms of the index.
    """
    usable = images_of(index)
    fitting = [
        each
        for each in usable
        if each.platform is None
        or wanted == Platform()
        or (each.platform.os == wanted.os and each.platform.architecture == wanted.architecture)
    ]
    if not fitting:
        there = ", ".join(str(each.platform) for each in usable if each.platform) or "nothing"
        raise NotFoundError(f"{what}: no manifest for {wanted}; there is {there}")

    def rank(each: Descriptor) -> int:
        if each.platform is None:
            return 3
        if each.platform.variant == wanted.variant:
            return 0
        return 1 if not each.platform.variant else 2

    return min(fitting, key=rank)
