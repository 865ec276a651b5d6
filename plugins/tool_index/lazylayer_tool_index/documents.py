"""Make the JSON documents that bind a SOCI index, version 2, to an image.

The platform's manifest names its SOCI index in an annotation. Both stand in one OCI index, the SOCI index beside the
manifest. Source: `soci_convert.go` and `soci_index.go` of soci-snapshotter 0.15. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from lazylayer.api.decoding import decode_json
from lazylayer.api.oci import Descriptor, MediaType, Platform, ResolvedImage, sha256_digest

__all__ = [
    "BUILD_TOOL",
    "CONFIG",
    "CONFIG_DESCRIPTOR",
    "INDEX_DIGEST",
    "LAYER_DIGEST",
    "SOCI_INDEX_V2",
    "SPAN_SIZE",
    "bind_manifest",
    "describe_soci_index",
    "describe_ztoc",
    "make_soci_index",
    "update_index",
]

Json = dict[str, Any]

SOCI_INDEX_V2 = "application/vnd.amazon.soci.index.v2+json"
INDEX_DIGEST = "com.amazon.soci.index-digest"
"""The annotation of an image's manifest."""
LAYER_DIGEST = "com.amazon.soci.image-layer-digest"
SPAN_SIZE = "com.amazon.soci.span-size"
BUILD_TOOL = "lazylayer"

CONFIG = b"{}"
CONFIG_DESCRIPTOR = Descriptor(SOCI_INDEX_V2, sha256_digest(CONFIG), len(CONFIG))
"""The config of a SOCI index, whose media type tells the version."""

_MANIFEST_DIGEST = "com.amazon.soci.image-manifest-digest"
_LAYER_MEDIA_TYPE = "com.amazon.soci.image-layer-mediaType"
_BUILD_TOOL = "com.amazon.soci.build-tool-identifier"
_ZTOC = "application/octet-stream"


def describe_ztoc(ztoc: bytes, layer: Descriptor, span_size: int) -> Descriptor:
    """Return the descriptor of a layer's zTOC."""
    annotations = {LAYER_DIGEST: layer.digest, _LAYER_MEDIA_TYPE: layer.media_type, SPAN_SIZE: str(span_size)}
    return Descriptor(_ZTOC, sha256_digest(ztoc), len(ztoc), annotations)


def make_soci_index(ztocs: Sequence[Descriptor]) -> bytes:
    """Return the manifest of a SOCI index."""
    return msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": MediaType.OCI_MANIFEST,
            "config": CONFIG_DESCRIPTOR,
            "layers": list(ztocs),
            "annotations": {_BUILD_TOOL: BUILD_TOOL},
        }
    )


def bind_manifest(image: ResolvedImage, soci_index: str) -> bytes:
    """Return the image's manifest as an OCI manifest that names its SOCI index, or none if it is empty.

    Its layers stay as they are, media types too.
    """
    manifest = decode_json(image.manifest_bytes, Json)
    annotations = {**(manifest.get("annotations") or {})}
    annotations.pop(INDEX_DIGEST, None)
    if soci_index:
        annotations[INDEX_DIGEST] = soci_index
    # Registries reject indexes that mix Docker's manifests with OCI's.
    config = {**manifest["config"], "mediaType": MediaType.OCI_CONFIG}
    bound = {**manifest, "mediaType": MediaType.OCI_MANIFEST, "config": config, "annotations": annotations}
    return msgspec.json.encode({key: value for key, value in bound.items() if key != "annotations" or value})


def describe_soci_index(data: bytes, manifest: Descriptor, platform: Platform) -> Json:
    """Return the entry of a SOCI index in an OCI index, beside the image's `manifest`."""
    return {
        "mediaType": MediaType.OCI_MANIFEST,
        "artifactType": SOCI_INDEX_V2,
        "digest": sha256_digest(data),
        "size": len(data),
        "annotations": {_MANIFEST_DIGEST: manifest.digest},
        "platform": msgspec.to_builtins(platform),
    }


def update_index(before: Json, bound: Mapping[str, Json], soci_indexes: Iterable[Json]) -> bytes:
    """Return an OCI index with new entries for manifests, by their old digests, and these SOCI indexes.

    A SOCI index replaces the one that named the old manifest, or that is for the same platform.
    """
    added = list(soci_indexes)
    platforms = [each["platform"] for each in added]

    def stays(entry: Json) -> bool:
        if entry.get("artifactType") != SOCI_INDEX_V2:
            return True
        named = (entry.get("annotations") or {}).get(_MANIFEST_DIGEST, "")
        return named not in bound and _without_features(entry.get("platform")) not in platforms

    entries = [bound.get(entry["digest"], entry) for entry in before["manifests"] if stays(entry)]
    index = {**before, "schemaVersion": 2, "mediaType": MediaType.OCI_INDEX, "manifests": [*entries, *added]}
    return msgspec.json.encode(index)


def _without_features(platform: Json | None) -> Json:
    return {key: value for key, value in (platform or {}).items() if key in ("architecture", "os", "variant")}
