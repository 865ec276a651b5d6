"""Images for the resolver kit, as OCI image layouts on disk: small, and known byte by byte."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lazylayer.api.oci import Descriptor, MediaType, Platform, sha256_digest

__all__ = ["LayoutImage", "write_image", "write_index"]

_REFERENCE_NAME = "org.opencontainers.image.ref.name"


class LayoutImage:
    """An image in a layout: what its manifest, config and layers are."""

    def __init__(self, layers: Sequence[bytes], platform: Platform) -> None:
        self.layers = tuple(layers)
        self.platform = platform
        self.config = json.dumps(
            {
                "architecture": platform.architecture,
                "os": platform.os,
                "rootfs": {"type": "layers", "diff_ids": [sha256_digest(each) for each in layers]},
            }
        ).encode()
        self.descriptors = [Descriptor(MediaType.OCI_LAYER, sha256_digest(each), len(each)) for each in layers]
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MediaType.OCI_MANIFEST,
                "config": _fields(MediaType.OCI_CONFIG, self.config),
                "layers": [_fields(MediaType.OCI_LAYER, each) for each in layers],
            }
        ).encode()

    @property
    def digest(self) -> str:
        """Of the manifest."""
        return sha256_digest(self.manifest)

    @classmethod
    def random(cls, seed: int, *sizes: int, platform: Platform | None = None) -> LayoutImage:
        """Return an image with layers of these sizes, whose bytes follow from the seed."""
        source = random.Random(seed)  # noqa: S311 - the same bytes each time
        return cls([source.randbytes(size) for size in sizes], platform or Platform.of_this_machine())


def write_image(directory: Path, name: str, image: LayoutImage) -> None:
    """Write a layout with one image."""
    _write(directory, name, MediaType.OCI_MANIFEST, image.manifest, [image])


def write_index(directory: Path, name: str, images: Sequence[LayoutImage]) -> None:
    """Write a layout with one index, of images for several platforms."""
    entries = []
    for image in images:
        platform = {"architecture": image.platform.architecture, "os": image.platform.os}
        if image.platform.variant:
            platform["variant"] = image.platform.variant
        entries.append({**_fields(MediaType.OCI_MANIFEST, image.manifest), "platform": platform})
    index = json.dumps({"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX, "manifests": entries}).encode()
    _write(directory, name, MediaType.OCI_INDEX, index, images)


def _write(directory: Path, name: str, media_type: str, top: bytes, images: Sequence[LayoutImage]) -> None:
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for data in (top, *(each for image in images for each in (image.manifest, image.config, *image.layers))):
        (blobs / sha256_digest(data).partition(":")[2]).write_bytes(data)
    entry = {**_fields(media_type, top), "annotations": {_REFERENCE_NAME: name}}
    _dump(directory / "index.json", {"schemaVersion": 2, "manifests": [entry]})
    _dump(directory / "oci-layout", {"imageLayoutVersion": "1.0.0"})


def _dump(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content))


def _fields(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256_digest(data), "size": len(data)}
