"""Read and write images on disk: OCI image layouts, and archives of them or of `docker save`."""

from __future__ import annotations

from pathlib import Path

from lazylayer import hookimpl
from lazylayer.api.oci import Descriptor, Platform, Reference, ResolvedImage
from lazylayer.api.sources import BlobSource
from lazylayer.errors import BuildError
from lazylayer_building import ImageStore

_SCHEMES = ("oci", "oci-archive", "docker-archive")


@hookimpl
def lazylayer_resolve_image(reference: Reference, platform: Platform) -> ResolvedImage | None:
    """Resolve `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` and `docker-archive:FILE[:TAG]`."""
    if reference.scheme not in _SCHEMES:
        return None
    from lazylayer_resolver_layout.files import open_layout

    if reference.scheme == "docker-archive":
        from lazylayer_resolver_layout.docker_archive import find_docker_image

        return find_docker_image(open_layout(reference), reference)
    from lazylayer_resolver_layout.images import find_image

    return find_image(open_layout(reference), reference, platform)


@hookimpl
def lazylayer_resolve_blob(reference: Reference, descriptor: Descriptor) -> BlobSource | None:
    """Open a blob of such an image; blobs in an archive are read in place."""
    if reference.scheme not in _SCHEMES:
        return None
    from lazylayer_resolver_layout.files import blob_name, open_layout
    from lazylayer_resolver_layout.source import FileSource

    files, name = open_layout(reference), blob_name(descriptor.digest)
    if reference.scheme == "docker-archive":
        from lazylayer_resolver_layout.docker_archive import layer_files

        name = layer_files(files, reference).get(descriptor.digest, name)
    return FileSource(files, descriptor, name)


@hookimpl
def lazylayer_open_store(reference: Reference) -> ImageStore | None:
    """Open a layout or archive for writing."""
    if reference.scheme not in _SCHEMES:
        return None
    from lazylayer_resolver_layout.store import ArchiveStore, DirectoryStore

    if reference.digest:
        raise BuildError(f"{reference}: cannot write to a digest, which only the result has; name a tag instead")
    path = Path(reference.repository)
    return DirectoryStore(path) if reference.scheme == "oci" else ArchiveStore(path, reference)
