"""Images in a zip file: `zip://NAME` is the image NAME of the OCI image layout in it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from lazylayer import SkipPlugin, hookimpl
from lazylayer.api import oci
from lazylayer.api.byteranges import ByteRange
from lazylayer.api.sources import BlobSource
from lazylayer.errors import FormatError, NotFoundError, UnavailableError, VerificationError
from lazylayer_manifests import choose_manifest, decode_config, decode_manifest_or_index

_NAME = "org.opencontainers.image.ref.name"


class Options(msgspec.Struct, frozen=True):
    file: str = ""


@contextmanager
def _opened(file: str, name: str) -> Iterator[tuple[zipfile.ZipFile, int]]:
    """Yield the zip file and the size of the member `name`. Raises ResolveError."""
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive, archive.getinfo(name).file_size
    except KeyError:
        raise NotFoundError(f"{file}: no {name} in it") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise UnavailableError(f"{file}: cannot read {name}: {error}") from error


def _read(file: str, name: str, digest: str = "") -> bytes:
    """Return a small member, verified if `digest` is given."""
    with _opened(file, name) as (archive, size):
        data = archive.read(name) if size <= oci.MAX_MANIFEST_SIZE else b""
    if size != len(data) or (digest and oci.sha256_digest(data) != digest):
        raise VerificationError(f"{file}: {name} is too large or damaged; copy the file again")
    return data


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


class ZipBlob(BlobSource):
    """A blob in the zip file."""

    def __init__(self, file: str, descriptor: oci.Descriptor) -> None:
        self._file, self._name = file, _path(descriptor.digest)
        with _opened(file, self._name) as (_, self.size):
            if descriptor.size not in (0, self.size):
                raise FormatError(f"{file}: {self._name} has {self.size} bytes, not {descriptor.size}")

    def fetch(self, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        with _opened(self._file, self._name) as (archive, _), archive.open(self._name) as member:
            for start, end in ranges:
                member.seek(start)
                yield start, member.read(end - start)

    def check(self) -> None:
        with _opened(self._file, self._name):
            pass


class ResolverZip:
    """The plugin."""

    @hookimpl
    def lazylayer_configure(self, options: Options) -> None:
        self._file = options.file
        if not options.file:
            raise SkipPlugin("[plugin.resolver_zip] names no file; set file to use it")

    @hookimpl
    def lazylayer_resolve_image(self, reference: oci.Reference, platform: oci.Platform) -> oci.ResolvedImage | None:
        """Find the manifest for the platform, and its config. Both are verified."""
        if reference.scheme != "zip":
            return None
        digest, name = reference.digest, reference.tag or reference.repository
        data = _read(self._file, _path(digest) if digest else "index.json", digest)
        while isinstance(found := decode_manifest_or_index(data, str(reference)), oci.Index):
            named = [each for each in found.manifests if digest or each.annotations.get(_NAME) == name]
            if not named:
                raise NotFoundError(f"{reference}: no image {name} in {self._file}")
            chosen = named[0] if len(named) == 1 else choose_manifest(oci.Index(named), platform, str(reference))
            digest, data = chosen.digest, _read(self._file, _path(chosen.digest), chosen.digest)
        config = _read(self._file, _path(found.config.digest), found.config.digest)
        kind, decoded = found.media_type or oci.MediaType.OCI_MANIFEST, decode_config(config, str(reference))
        return oci.ResolvedImage(reference, oci.parse_digest(digest), kind, found, decoded, data, config)

    @hookimpl
    def lazylayer_resolve_blob(self, reference: oci.Reference, descriptor: oci.Descriptor) -> BlobSource | None:
        """Open a blob of the zip file."""
        return ZipBlob(self._file, descriptor) if reference.scheme == "zip" else None
