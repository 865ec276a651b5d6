"""Read images in archives of `docker save`: plain layers, listed in a `manifest.json`.

Source: the Docker image specification v1.2, "Combined Image JSON + Filesystem Changeset Format". Such an
archive has no manifest with digests. We make one from the config, whose diff IDs are the digests of the
plain layers; readers verify layers against them as usual.
"""

from __future__ import annotations

import os

import msgspec

from lazylayer.api.decoding import decode_json
from lazylayer.api.oci import (
    MAX_MANIFEST_SIZE,
    Descriptor,
    Digest,
    Manifest,
    MediaType,
    Reference,
    ResolvedImage,
    parse_digest,
    sha256_digest,
)
from lazylayer.errors import FormatError, NotFoundError
from lazylayer_manifests import decode_config
from lazylayer_resolver_layout.files import LayoutFiles

__all__ = ["find_docker_image", "layer_files"]

_GZIP = b"\x1f\x8b"
_BLOBS = "blobs/sha256/"


class _Saved(msgspec.Struct, rename="pascal"):
    """One image in `manifest.json`."""

    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


def find_docker_image(files: LayoutFiles, reference: Reference) -> ResolvedImage:
    """Return the image with the tag of `reference`, or the only image if it has no tag.

    Raises NotFoundError, UnavailableError or FormatError.
    """
    saved, config = _choose(files, reference)
    layers = []
    for digest, name in _name_layers(files, saved, config).items():
        part = files.open(name)
        try:
            is_gzip = os.pread(part.descriptor, 2, part.start) == _GZIP
        finally:
            os.close(part.descriptor)
        layers.append((digest, MediaType.DOCKER_LAYER_GZIP if is_gzip else MediaType.DOCKER_LAYER, part.size))
    known = {digest: Descriptor(media_type, digest, size) for digest, media_type, size in layers}
    manifest = Manifest(
        config=Descriptor(MediaType.DOCKER_CONFIG, sha256_digest(config), len(config)),
        layers=[known[digest] for digest in _digests(files, saved, config)],
        schema_version=2,
        media_type=MediaType.DOCKER_MANIFEST,
    )
    data = msgspec.json.encode(manifest)
    return ResolvedImage(
        reference=reference,
        digest=sha256_digest(data),
        media_type=MediaType.DOCKER_MANIFEST,
        manifest=manifest,
        config=decode_config(config, f"{reference}: {saved.config}"),
        manifest_bytes=data,
        config_bytes=config,
    )


def layer_files(files: LayoutFiles, reference: Reference) -> dict[Digest, str]:
    """Return the file name of each layer of the image in the archive, by digest."""
    saved, config = _choose(files, reference)
    return _name_layers(files, saved, config)


def _choose(files: LayoutFiles, reference: Reference) -> tuple[_Saved, bytes]:
    try:
        images = decode_json(files.read("manifest.json", MAX_MANIFEST_SIZE), list[_Saved])
    except FormatError as error:
        raise FormatError(f"{files.path}: manifest.json is not from `docker save`: {error}") from error
    tags = [tag for image in images for tag in image.repo_tags or ()]
    if reference.tag:
        fitting = [image for image in images if any(tag.endswith(f":{reference.tag}") for tag in image.repo_tags or ())]
    else:
        fitting = images
    if len(fitting) != 1:
        found = ", ".join(tags) or "images without names"
        raise NotFoundError(f"{reference}: matches {len(fitting)} images, expected one; the archive has {found}")
    return fitting[0], files.read(os.path.normpath(fitting[0].config), MAX_MANIFEST_SIZE)


def _name_layers(files: LayoutFiles, saved: _Saved, config: bytes) -> dict[Digest, str]:
    names = [os.path.normpath(name) for name in saved.layers]
    return dict(zip(_digests(files, saved, config), names, strict=True))


def _digests(files: LayoutFiles, saved: _Saved, config: bytes) -> list[Digest]:
    """Return the layers' digests: newer archives name files by them, in older ones they are the diff IDs."""
    diff_ids = decode_config(config, f"{files.path}: {saved.config}").rootfs.diff_ids
    if len(diff_ids) != len(saved.layers):
        raise FormatError(f"{files.path}: {len(saved.layers)} layers in manifest.json, {len(diff_ids)} in the config")
    return [
        parse_digest(f"sha256:{name[len(_BLOBS) :]}") if name.startswith(_BLOBS) else diff_id
        for name, diff_id in zip(map(os.path.normpath, saved.layers), diff_ids, strict=True)
    ]
