"""The types of plugins that build layers or store images; `hookspecs` has their hooks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import IO

import msgspec

from lazylayer.api.oci import Descriptor, Digest, Reference

__all__ = ["BuildOptions", "BuiltLayer", "CompanionLayer", "ImageStore"]


class BuildOptions(msgspec.Struct, frozen=True):
    """Options of building a layer; sizes in bytes.

    `level` is the compressor's, None for the format's default. Files smaller than `min_chunk_size` are
    compressed together up to that size; 0 keeps each by itself. `prefetch` lists paths, first read first,
    that are put in front of the prefetch landmark; if it is empty, the layer gets a no-prefetch landmark.
    `jobs` is the number of threads that compress, 0 for one per core; it never changes the result. With
    `external_toc` the table of contents goes to a companion image (see `BuiltLayer`). With `keep_diff_id`
    the layer inflates to exactly the archive that it was built from. A format that supports neither raises
    BuildError.
    """

    chunk_size: int = 4 * 1024 * 1024
    level: int | None = None
    min_chunk_size: int = 0
    prefetch: Sequence[bytes] = ()
    jobs: int = 0
    external_toc: bool = False
    keep_diff_id: bool = False


class CompanionLayer(msgspec.Struct, frozen=True):
    """A layer of a companion image, whose tag is the image's own followed by `suffix`.

    Its annotations say to which layer it belongs, so that `lazylayer.layers.companions.Companions` finds it.
    """

    suffix: str
    descriptor: Descriptor
    data: bytes


class BuiltLayer(msgspec.Struct, frozen=True):
    """A layer that a format built: its descriptor, with annotations, and the digest of its plain tar.

    `companions` are the layers of other images that readers need too.
    """

    descriptor: Descriptor
    diff_id: Digest
    companions: tuple[CompanionLayer, ...] = ()


class ImageStore(ABC):
    """A place for images: a layout on disk, a registry. Used by one thread."""

    @abstractmethod
    def has_blob(self, digest: Digest, size: int) -> bool:
        """Return True if the whole blob is there already."""

    @abstractmethod
    def put_blob(self, descriptor: Descriptor, data: IO[bytes]) -> None:
        """Write the blob that `data` yields. Raises BuildError if `descriptor` does not describe it.

        After an error nothing is visible under the digest.
        """

    def take_blob(self, descriptor: Descriptor, source: Reference) -> bool:  # noqa: ARG002
        """Take over a blob from the image `source` on the server's side. Return False if that is impossible.

        The caller then puts the blob. Raises the errors of `put_blob`.
        """
        return False

    @abstractmethod
    def put_manifest(self, reference: Reference, media_type: str, data: bytes) -> Descriptor:
        """Store this manifest (or index), whose blobs are all there, and make `reference` name it.

        This last step is atomic: before it, the image is not visible. A reference with a digest gets no
        name: its manifest is only stored, to be part of an index. An image that this one needs, under
        another tag of the same repository, is written first, in the same way.
        """

    def close(self) -> None:
        """Release what the store holds."""
