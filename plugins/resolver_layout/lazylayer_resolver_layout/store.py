"""Write images to an OCI image layout: a directory, or a tar archive of one.

Blobs and `index.json` are written to temporary files and renamed; an archive appears once its image is
complete. So readers never see partial files.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from lazylayer.api.decoding import decode_json
from lazylayer.api.oci import (
    MAX_MANIFEST_SIZE,
    Descriptor,
    Digest,
    Index,
    Manifest,
    MediaType,
    Reference,
    sha256_digest,
)
from lazylayer.errors import BuildError, FormatError
from lazylayer_building import ImageStore
from lazylayer_manifests import decode_manifest_or_index
from lazylayer_resolver_layout.files import blob_name
from lazylayer_resolver_layout.images import REFERENCE_NAME

__all__ = ["ArchiveStore", "DirectoryStore"]

_PIECE = 1024 * 1024
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


def _copy(descriptor: Descriptor, data: IO[bytes], write: Callable[[bytes], object]) -> None:
    """Copy a blob. Raises BuildError if its size or digest differ from its descriptor."""
    hasher, size = hashlib.sha256(), 0
    while piece := data.read(_PIECE):
        size += len(piece)
        if size > descriptor.size:
            break
        hasher.update(piece)
        write(piece)
    if size != descriptor.size:
        more = "at least " if size > descriptor.size else ""
        raise BuildError(f"blob {descriptor.digest}: expected {descriptor.size} bytes, got {more}{size}")
    if f"sha256:{hasher.hexdigest()}" != descriptor.digest:
        raise BuildError(f"blob {descriptor.digest}: the data to write has digest sha256:{hasher.hexdigest()}")


def _index_entry(reference: Reference, media_type: str, data: bytes) -> Descriptor:
    annotations = {REFERENCE_NAME: reference.tag} if reference.tag else {}
    return Descriptor(media_type, sha256_digest(data), len(data), annotations)


def _add_to_index(index: dict[str, Any], entry: Descriptor) -> dict[str, Any]:
    """Return the index with `entry`, which replaces an entry with the same tag."""
    tag = entry.annotations.get(REFERENCE_NAME, "")
    others = [each for each in index["manifests"] if (each.get("annotations") or {}).get(REFERENCE_NAME, "") != tag]
    return {**index, "manifests": [*others, msgspec.to_builtins(entry)]}


def _docker_manifest(data: bytes) -> bytes:
    manifest = decode_manifest_or_index(data, "the manifest to be written")
    if not isinstance(manifest, Manifest):
        return b"[]"
    layers = [blob_name(layer.digest) for layer in manifest.layers]
    return msgspec.json.encode([{"Config": blob_name(manifest.config.digest), "RepoTags": None, "Layers": layers}])


def _new_index() -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX, "manifests": []}


class DirectoryStore(ImageStore):
    """A layout directory, created if missing. Several programs may write to it at the same time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            (directory / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BuildError(f"{directory}: cannot create a layout: {error.strerror}") from error

    def has_blob(self, digest: Digest, size: int) -> bool:
        """Return True if the blob is already written. See `ImageStore.has_blob`."""
        path = self._directory / blob_name(digest)
        return path.is_file() and path.stat().st_size == size

    def put_blob(self, descriptor: Descriptor, data: IO[bytes]) -> None:
        """Copy and verify a blob. See `ImageStore.put_blob`."""
        self._replace(blob_name(descriptor.digest), lambda write: _copy(descriptor, data, write))

    def put_manifest(self, reference: Reference, media_type: str, data: bytes) -> Descriptor:
        """Write a manifest and add its tag to the index. See `ImageStore.put_manifest`."""
        entry = _index_entry(reference, media_type, data)
        self.put_blob(entry, io.BytesIO(data))
        if reference.digest:
            return entry
        lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            index = msgspec.json.encode(_add_to_index(self._index(), entry))
            self._replace("oci-layout", lambda write: write(_LAYOUT))
            self._replace("index.json", lambda write: write(index))
        finally:
            os.close(lock)
        return entry

    def _index(self) -> dict[str, Any]:
        path = self._directory / "index.json"
        if not path.exists():
            return _new_index()
        try:
            if path.stat().st_size > MAX_MANIFEST_SIZE:
                raise FormatError(f"larger than {MAX_MANIFEST_SIZE} bytes")
            data = path.read_bytes()
            if not isinstance(decode_manifest_or_index(data, str(path)), Index):
                raise FormatError("found a manifest")
        except FormatError as error:
            raise BuildError(f"{path}: not an image index, not overwritten: {error}") from error
        # A plain dict, to keep unknown fields.
        index: dict[str, Any] = decode_json(data, dict[str, Any])
        return index

    def _replace(self, name: str, fill: Callable[[Callable[[bytes], object]], object]) -> None:
        path = self._directory / name
        temporary = ""
        try:
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".writing-", delete=False) as file:
                temporary = file.name
                fill(file.write)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o644)
            Path(temporary).replace(path)
        except BaseException as error:
            if temporary:
                with suppress(OSError):
                    Path(temporary).unlink()
            if isinstance(error, OSError):
                raise BuildError(f"{path}: cannot write: {error.strerror}") from error
            raise


class ArchiveStore(ImageStore):
    """A new tar archive, which replaces the file `path` once the image `reference` is written.

    Images written before that one are in the archive too. `docker load` reads the archive as well: besides
    `index.json`, it has the `manifest.json` that Docker expects.
    """

    def __init__(self, path: Path, reference: Reference) -> None:
        self._path = path
        self._reference = reference
        self._index = _new_index()
        self._written: dict[Digest, int] = {}
        try:
            self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - open as long as the store is
                dir=path.parent, prefix=f".{path.name[:100]}-", delete=False
            )
        except OSError as error:
            raise BuildError(f"{path}: cannot write: {error.strerror}") from error
        self._done = False

    def has_blob(self, digest: Digest, size: int) -> bool:
        """Return True if the blob is already written. See `ImageStore.has_blob`."""
        return self._written.get(digest) == size

    def put_blob(self, descriptor: Descriptor, data: IO[bytes]) -> None:
        """Copy and verify a blob. See `ImageStore.put_blob`."""
        if self.has_blob(descriptor.digest, descriptor.size):
            return
        self._add(blob_name(descriptor.digest), descriptor.size, lambda write: _copy(descriptor, data, write))
        self._written[descriptor.digest] = descriptor.size

    def put_manifest(self, reference: Reference, media_type: str, data: bytes) -> Descriptor:
        """Add a manifest; that of the archive's own reference completes it. See `ImageStore.put_manifest`."""
        entry = _index_entry(reference, media_type, data)
        self.put_blob(entry, io.BytesIO(data))
        if reference.digest:
            return entry
        self._index = _add_to_index(self._index, entry)
        if reference != self._reference:
            return entry
        index = msgspec.json.encode(self._index)
        docker = _docker_manifest(data)
        self._add("manifest.json", len(docker), lambda write: write(docker))
        self._add("index.json", len(index), lambda write: write(index))
        self._add("oci-layout", len(_LAYOUT), lambda write: write(_LAYOUT))
        try:
            self._file.write(bytes(1024))
            self._file.flush()
            os.fsync(self._file.fileno())
            os.fchmod(self._file.fileno(), 0o644)
            Path(self._file.name).replace(self._path)
        except OSError as error:
            raise BuildError(f"{self._path}: cannot write: {error.strerror}") from error
        self._done = True
        return entry

    def _add(self, name: str, size: int, fill: Callable[[Callable[[bytes], object]], object]) -> None:
        import tarfile

        member = tarfile.TarInfo(name)
        member.size = size
        start = self._file.tell()
        try:
            self._file.write(member.tobuf(tarfile.PAX_FORMAT))
            fill(self._file.write)
            self._file.write(bytes(-size % 512))
        except BaseException as error:
            with suppress(OSError):
                self._file.seek(start)
                self._file.truncate()
            if isinstance(error, OSError):
                raise BuildError(f"{self._path}: cannot write: {error.strerror}") from error
            raise

    def close(self) -> None:
        """Close the archive, and remove it if it is incomplete."""
        # Closing flushes buffered data, which fails on a full disk; the descriptor is closed anyway.
        with suppress(OSError):
            self._file.close()
        if not self._done:
            Path(self._file.name).unlink(missing_ok=True)
