"""Write an image whose layers are in a store already: its config, and then its manifest."""

from __future__ import annotations

import io
from collections.abc import Sequence

import msgspec

from lazylayer.api.oci import Descriptor, Digest, Manifest, MediaType, Platform, Reference, sha256_digest
from lazylayer_building import ImageStore

__all__ = ["image_config", "write_image"]


def image_config(platform: Platform, diff_ids: Sequence[Digest], created_by: str = "") -> bytes:
    """Return a minimal config of an image of layers with these diff IDs, lowest first."""
    config = {
        "architecture": platform.architecture,
        "os": platform.os,
        **({"variant": platform.variant} if platform.variant else {}),
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        **({"history": [{"created_by": created_by} for _ in diff_ids]} if created_by else {}),
    }
    return msgspec.json.encode(config)


def write_image(
    store: ImageStore,
    destination: Reference,
    config: bytes,
    layers: Sequence[Descriptor],
    annotations: dict[str, str],
    *,
    named: bool = True,
) -> Descriptor:
    """Write config and manifest of an OCI image of these layers and return the manifest's descriptor.

    Unless `named`, the image gets no name and is found by its digest only. Raises BuildError and the errors
    of the store.
    """
    config_descriptor = Descriptor(MediaType.OCI_CONFIG, sha256_digest(config), len(config))
    if not store.has_blob(config_descriptor.digest, config_descriptor.size):
        store.put_blob(config_descriptor, io.BytesIO(config))
    manifest = Manifest(
        config=config_descriptor,
        layers=list(layers),
        schema_version=2,
        media_type=MediaType.OCI_MANIFEST,
        annotations=annotations,
    )
    data = msgspec.json.encode(manifest)
    if not named:
        destination = msgspec.structs.replace(destination, tag="", digest=sha256_digest(data))
    return store.put_manifest(destination, MediaType.OCI_MANIFEST, data)
