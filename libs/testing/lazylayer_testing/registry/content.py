"""The content of a scripted registry: repositories with blobs, manifests, tags and unfinished uploads."""

from __future__ import annotations

import gzip
import json
import secrets
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lazylayer.api.oci import Descriptor, Digest, MediaType, Platform, parse_digest, sha256_digest

__all__ = ["ImageLayer", "RegistryContent", "StoredManifest"]

_REFERENCE_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True)
class ImageLayer:
    """One layer of an image to be added: its bytes as stored, and what its descriptor says.

    An empty `diff_id` is worked out: the digest of the bytes, decompressed if they are gzip.
    """

    data: bytes
    media_type: str = MediaType.OCI_LAYER_GZIP
    annotations: Mapping[str, str] = field(default_factory=dict)
    diff_id: str = ""


@dataclass(frozen=True)
class StoredManifest:
    """A manifest or index as it was put, with the media type that it is served as."""

    data: bytes
    media_type: str


@dataclass
class _Repository:
    blobs: set[str] = field(default_factory=set)
    manifests: dict[str, StoredManifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class RegistryContent:
    """Blobs and manifests in memory, by repository. Safe to use from several threads.

    A blob is only visible in the repositories that it was added to, as in a real registry. Two
    registries may share one content, as a registry and its blob storage do.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._data: dict[str, bytes] = {}
        self._repositories: dict[str, _Repository] = {}
        self._uploads: dict[str, bytearray] = {}

    def add_blob(self, repository: str, data: bytes, media_type: str = "application/octet-stream") -> Descriptor:
        """Add a blob and return its descriptor."""
        digest = sha256_digest(data)
        with self._lock:
            self._data[digest] = data
            self._repository(repository).blobs.add(digest)
        return Descriptor(media_type=media_type, digest=digest, size=len(data))

    def replace_blob(self, digest: str, data: bytes) -> None:
        """Serve other bytes under a digest than it promises, as a registry with a broken disk does."""
        with self._lock:
            self._data[digest] = data

    def add_manifest(self, repository: str, data: bytes, media_type: str, tag: str = "") -> Descriptor:
        """Add a manifest or index, under its digest and, if there is one, a tag."""
        digest = sha256_digest(data)
        with self._lock:
            stored = self._repository(repository)
            stored.manifests[digest] = StoredManifest(data, media_type)
            if tag:
                stored.tags[tag] = digest
        return Descriptor(media_type=media_type, digest=digest, size=len(data))

    def add_image(
        self,
        repository: str,
        tag: str,
        layers: Sequence[bytes | ImageLayer],
        config: Mapping[str, Any] | None = None,
        *,
        media_type: str = MediaType.OCI_MANIFEST,
        annotations: Mapping[str, str] | None = None,
    ) -> Descriptor:
        """Add an image, lowest layer first, and return the descriptor of its manifest.

        `config` is the image config; what it leaves out is filled in: this machine's platform and
        the `rootfs` with the layers' diff IDs. An empty `tag` leaves the image untagged.
        """
        stored = [each if isinstance(each, ImageLayer) else ImageLayer(each) for each in layers]
        platform = Platform.of_this_machine()
        whole_config: dict[str, Any] = {
            "architecture": platform.architecture,
            "os": platform.os,
            "rootfs": {"type": "layers", "diff_ids": [each.diff_id or _diff_id(each.data) for each in stored]},
            **(config or {}),
        }
        docker = media_type == MediaType.DOCKER_MANIFEST
        config_type = MediaType.DOCKER_CONFIG if docker else MediaType.OCI_CONFIG
        config_descriptor = self.add_blob(repository, json.dumps(whole_config).encode(), config_type)
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": _descriptor_fields(config_descriptor),
            "layers": [
                _descriptor_fields(self.add_blob(repository, each.data, each.media_type), each.annotations)
                for each in stored
            ],
        }
        if annotations:
            manifest["annotations"] = dict(annotations)
        return self.add_manifest(repository, json.dumps(manifest).encode(), media_type, tag)

    def add_index(
        self,
        repository: str,
        tag: str,
        manifests: Sequence[tuple[Descriptor, Platform | None]],
        *,
        media_type: str = MediaType.OCI_INDEX,
    ) -> Descriptor:
        """Add an index of manifests (or indexes) that were added before, each with its platform."""
        entries = []
        for descriptor, platform in manifests:
            entry = _descriptor_fields(descriptor)
            if platform is not None:
                entry["platform"] = {"architecture": platform.architecture, "os": platform.os}
                if platform.variant:
                    entry["platform"]["variant"] = platform.variant
            entries.append(entry)
        index = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
        return self.add_manifest(repository, json.dumps(index).encode(), media_type, tag)

    def add_layout(self, directory: Path, repository: str, tag: str = "latest", name: str = "") -> Descriptor:
        """Add the image `name` of an OCI image layout on disk, with all that it refers to.

        `name` is the layout's own tag; empty takes the only image, or the one named as `tag`.
        Raises ValueError for no image, or more than one.
        """
        index = json.loads((directory / "index.json").read_bytes())
        entries = index["manifests"]
        wanted = name or tag
        named = [each for each in entries if each.get("annotations", {}).get(_REFERENCE_NAME) == wanted]
        chosen = named or ([] if name else entries)
        if len(chosen) != 1:
            raise ValueError(f"{directory}: {len(chosen)} images fit the name {wanted!r}")
        return self._add_from_layout(directory, repository, chosen[0], tag)

    def blob(self, repository: str, digest: str) -> bytes | None:
        """Return the blob's bytes, if the repository has it; manifests can be read as blobs, too."""
        with self._lock:
            stored = self._repositories.get(repository)
            if stored is None:
                return None
            if digest in stored.blobs:
                return self._data.get(digest)
            manifest = stored.manifests.get(digest)
            return manifest.data if manifest else None

    def blob_anywhere(self, digest: str) -> bytes | None:
        """Return the blob's bytes, whichever repository has it; as a blob storage knows them."""
        with self._lock:
            return self._data.get(digest)

    def manifest(self, repository: str, name: str) -> StoredManifest | None:
        """Return the manifest of a tag or digest."""
        with self._lock:
            stored = self._repositories.get(repository)
            return stored.manifests.get(stored.tags.get(name, name)) if stored else None

    def tags(self, repository: str) -> list[str] | None:
        """Return the repository's tags, sorted; None for an unknown repository."""
        with self._lock:
            stored = self._repositories.get(repository)
            return sorted(stored.tags) if stored else None

    def remove_blob(self, repository: str, digest: str) -> None:
        """Remove a blob from the repository."""
        with self._lock:
            self._repository(repository).blobs.discard(digest)

    def mount_blob(self, repository: str, digest: str, source: str) -> bool:
        """Show a blob of the repository `source` in `repository`. Return False if it has none."""
        with self._lock:
            origin = self._repositories.get(source)
            if origin is None or digest not in origin.blobs:
                return False
            self._repository(repository).blobs.add(digest)
            return True

    def begin_upload(self) -> str:
        """Start an upload and return its name."""
        name = secrets.token_hex(16)
        with self._lock:
            self._uploads[name] = bytearray()
        return name

    def upload_size(self, name: str) -> int | None:
        """Bytes that came so far; None for an unknown upload."""
        with self._lock:
            return len(self._uploads[name]) if name in self._uploads else None

    def append_upload(self, name: str, data: bytes) -> int:
        """Add bytes to an upload and return how many it has now."""
        with self._lock:
            self._uploads[name] += data
            return len(self._uploads[name])

    def finish_upload(self, name: str, repository: str, digest: str) -> bool:
        """Turn an upload into a blob. Return False, and drop the upload, if the digest differs."""
        with self._lock:
            data = bytes(self._uploads.pop(name))
            if sha256_digest(data) != digest:
                return False
            self.add_blob(repository, data)
            return True

    def cancel_upload(self, name: str) -> None:
        """Drop an upload."""
        with self._lock:
            self._uploads.pop(name, None)

    def missing_of_manifest(self, repository: str, data: bytes) -> list[str]:
        """Return the digests that a manifest refers to and the repository lacks. Raises ValueError for invalid JSON."""
        manifest = json.loads(data)
        blobs = [each["digest"] for each in [manifest.get("config"), *manifest.get("layers", [])] if each]
        manifests = [each["digest"] for each in manifest.get("manifests", [])]
        with self._lock:
            stored = self._repository(repository)
            return [each for each in blobs if each not in stored.blobs] + [
                each for each in manifests if each not in stored.manifests
            ]

    def _repository(self, name: str) -> _Repository:
        return self._repositories.setdefault(name, _Repository())

    def _add_from_layout(self, directory: Path, repository: str, entry: dict[str, Any], tag: str) -> Descriptor:
        data = _read_layout_blob(directory, entry["digest"])
        fields = json.loads(data)
        for each in fields.get("manifests", []):
            self._add_from_layout(directory, repository, each, "")
        for each in [fields.get("config"), *fields.get("layers", [])]:
            if each:
                self.add_blob(repository, _read_layout_blob(directory, each["digest"]))
        return self.add_manifest(repository, data, entry["mediaType"], tag)


def _read_layout_blob(directory: Path, digest: Digest) -> bytes:
    algorithm, _, name = parse_digest(digest).partition(":")
    return (directory / "blobs" / algorithm / name).read_bytes()


def _descriptor_fields(descriptor: Descriptor, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
    if annotations:
        fields["annotations"] = dict(annotations)
    return fields


def _diff_id(data: bytes) -> Digest:
    try:
        return sha256_digest(gzip.decompress(data))
    except (OSError, EOFError, zlib.error):
        return sha256_digest(data)
