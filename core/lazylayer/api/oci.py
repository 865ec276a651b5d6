"""The vocabulary of OCI images: digest, reference, platform, descriptor, manifest, image config.

Sources: the OCI image specification 1.1 (descriptor, manifest, index, config, annotations), the
OCI distribution specification 1.1 (the grammar of names and tags), and the `distribution/reference`
rules by which Docker completes short names (`debian` means `docker.io/library/debian:latest`).

Everything here is immutable data and pure functions; all of it is safe to use from any thread.
"""

from __future__ import annotations

import hashlib
import platform as _platform
import re
from typing import Any, NewType

import msgspec

from lazylayer.errors import FormatError, InvalidReferenceError

__all__ = [
    "DEFAULT_REGISTRY",
    "MAX_MANIFEST_SIZE",
    "MAX_TAG_LENGTH",
    "PATH_SCHEMES",
    "Descriptor",
    "Digest",
    "ImageConfig",
    "Index",
    "Manifest",
    "MediaType",
    "Platform",
    "Reference",
    "ResolvedImage",
    "parse_digest",
    "parse_reference",
    "sha256_digest",
]

Digest = NewType("Digest", str)
"""`sha256:` and 64 lower-case hexadecimal digits, checked by `parse_digest`."""

DEFAULT_REGISTRY = "docker.io"
"""The registry of names that do not begin with a host."""

MAX_MANIFEST_SIZE = 4 * 1024 * 1024
"""Bytes. Registries accept no larger manifests; we believe none, nor a larger image config."""

MAX_TAG_LENGTH = 128
"""Letters; the distribution specification allows no more, as `_TAG` has it."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PATH_PART}(?:/{_PATH_PART})*")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?")
PATH_SCHEMES = ("oci", "oci-archive", "docker-archive", "dir")
"""The schemes of references that hold a path on this machine: `oci:DIR`, for one."""
_OTHER_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://(.+)")


class MediaType:
    """The media types that lazylayer reads or writes."""

    OCI_INDEX = "application/vnd.oci.image.index.v1+json"
    OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
    OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
    OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
    OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
    OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
    DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
    DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
    DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
    DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
    DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

    MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
    INDEXES = (OCI_INDEX, DOCKER_LIST)


def parse_digest(text: str) -> Digest:
    """Parse a digest. Raises FormatError for anything but a sha256 digest."""
    if not _DIGEST.fullmatch(text):
        raise FormatError(f"not a digest: {text[:80]!r} (expected sha256: and 64 hexadecimal digits)")
    return Digest(text)


def sha256_digest(data: bytes | memoryview) -> Digest:
    """Return the sha256 digest of `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


class Reference(msgspec.Struct, frozen=True):
    """The name of an image: in a registry, or (with a `scheme`) somewhere else.

    `scheme` is empty for a registry; then `host` (as the user wrote it, `docker.io` when left out)
    and `repository` say where. With a scheme, `repository` is a path or whatever the scheme's
    resolver understands, and `host` is empty. At least one of `tag` and `digest` is set for a
    registry; elsewhere both may be empty ("the only image there").
    """

    repository: str
    host: str = ""
    tag: str = ""
    digest: str = ""
    scheme: str = ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        if self.scheme in PATH_SCHEMES:
            return f"{self.scheme}:{self.repository}{tag}{digest}"
        if self.scheme:
            return f"{self.scheme}://{self.repository}{tag}{digest}"
        return f"{self.host}/{self.repository}{tag}{digest}"


def parse_reference(text: str) -> Reference:
    """Parse a reference to an image.

    Understood: `[host/]name[:tag][@digest]` with Docker's completion of short names,
    `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:TAG]`, `dir:PATH`, and
    `scheme://anything` for resolvers of third parties. Raises InvalidReferenceError, with the reason.
    """
    if "\0" in text or text != text.strip() or not text:
        raise InvalidReferenceError(f"not an image reference: {text!r}")
    scheme, colon, rest = text.partition(":")
    if colon and scheme in PATH_SCHEMES:
        return _parse_path(text, scheme, rest)
    other = _OTHER_SCHEME.fullmatch(text)
    if other:
        return Reference(scheme=other[1], repository=other[2])
    return _parse_registry(text)


def _parse_path(text: str, scheme: str, rest: str) -> Reference:
    path, at, digest = rest.partition("@sha256:")
    if at:
        digest = "sha256:" + digest
        if not _DIGEST.fullmatch(digest):
            raise InvalidReferenceError(f"{text!r}: the digest is not sha256: and 64 hexadecimal digits")
    head, colon, tag = path.rpartition(":")
    if not colon or "/" in tag or scheme == "dir":
        head, tag = path, ""
    if head.startswith("//"):  # as in oci:///path; a leading // would read as a URL again
        head = "/" + head.lstrip("/")
    if not head:
        raise InvalidReferenceError(f"{text!r}: a path must follow {scheme}:")
    if tag and not _TAG.fullmatch(tag):
        raise InvalidReferenceError(f"{text!r}: {tag!r} is not a tag")
    return Reference(scheme=scheme, repository=head, tag=tag, digest=digest)


def _parse_registry(text: str) -> Reference:
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise InvalidReferenceError(f"{text!r}: the digest is not sha256: and 64 hexadecimal digits")
    first, slash, others = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        host, path = first, others
    else:
        host, path = DEFAULT_REGISTRY, name
    if host == "index.docker.io":
        host = DEFAULT_REGISTRY
    if not _HOST.fullmatch(host):
        raise InvalidReferenceError(f"{text!r}: {host!r} is not a host[:port]")
    path, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise InvalidReferenceError(f"{text!r}: {tag!r} is not a tag")
    if host == DEFAULT_REGISTRY and "/" not in path:
        path = f"library/{path}"
    if not _REPOSITORY.fullmatch(path):
        raise InvalidReferenceError(
            f"{text!r}: {path!r} is not a repository name (lower-case letters, digits, '.', '_', '-', '/')"
        )
    return Reference(host=host, repository=path, tag=tag or ("" if digest else "latest"), digest=digest)


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """An operating system and processor, in Go's spelling (`linux`, `amd64`, `arm64`, `v8`)."""

    architecture: str = ""
    os: str = ""
    variant: str = ""

    @classmethod
    def of_this_machine(cls) -> Platform:
        """Return the platform that this program runs on."""
        machine = _platform.machine()
        known = {"x86_64": ("amd64", ""), "aarch64": ("arm64", "v8"), "armv7l": ("arm", "v7")}
        architecture, variant = known.get(machine, (machine, ""))
        return cls(architecture=architecture, os="linux", variant=variant)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """`os/architecture[/variant]`, as in `linux/arm64/v8`. Raises FormatError."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise FormatError(f"not a platform: {text!r} (expected os/architecture or os/architecture/variant)")
        return cls(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else "")


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A pointer to one blob: its media type, digest, size (bytes) and annotations."""

    media_type: str
    digest: Digest
    size: int
    annotations: dict[str, str] = {}
    platform: Platform | None = None
    urls: list[str] = []
    artifact_type: str = ""

    def __post_init__(self) -> None:
        parse_digest(self.digest)
        if self.size < 0:
            raise FormatError(f"descriptor {self.digest}: its size is {self.size}")


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An image manifest, OCI or Docker schema 2; layers are lowest first."""

    config: Descriptor
    layers: list[Descriptor]
    schema_version: int = 0
    media_type: str = ""
    annotations: dict[str, str] = {}


class Index(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An image index (OCI) or manifest list (Docker)."""

    manifests: list[Descriptor]
    schema_version: int = 0
    media_type: str = ""
    annotations: dict[str, str] = {}


class RootFilesystem(msgspec.Struct, frozen=True):
    """The part of an image config that names the uncompressed layers, lowest first."""

    type: str = "layers"
    diff_ids: list[Digest] = []


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """The part of an image config that lazylayer needs; its raw bytes are kept apart."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    rootfs: RootFilesystem = RootFilesystem()
    config: dict[str, Any] = {}
    history: list[dict[str, Any]] = []


class ResolvedImage(msgspec.Struct, frozen=True):
    """An image that a resolver found: one manifest for one platform, and its config.

    `digest` is that of `manifest_bytes`; both raw forms are exactly what the source sent, so that
    they can be stored and verified again. `index` is what the reference names when it names several
    images, for platforms of their own; `index_bytes` is its raw form.
    """

    reference: Reference
    digest: Digest
    media_type: str
    manifest: Manifest
    config: ImageConfig
    manifest_bytes: bytes
    config_bytes: bytes
    index: Index | None = None
    index_bytes: bytes = b""
