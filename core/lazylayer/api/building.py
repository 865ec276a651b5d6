"""What stands between the core and a plugin that builds layers or stores images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import IO

import msgspec

from lazylayer.api.oci import Descriptor, Digest, Reference

__all__ = ["BuildOptions", "BuiltLayer", "CompanionLayer", "ImageStore"]


class BuildOptions(msgspec.Struct, frozen=True):
    """How to build a layer; sizes in bytes.

    `level` is the compressor's, None for the format's default. Files smaller than `min_chunk_size`
    are compressed together up to that size; 0 keeps each by itself. `prefetch` lists paths, first
    read first, that are put in front of the landmark; without any there is a no-prefetch landmark.
    `jobs` is how many threads compress, 0 for one on each core; it never changes the result.
    With `external_toc` the table of contents goes to a companion image (see `BuiltLayer`), and with
    `keep_diff_id` the layer inflates to the archive exactly as it was; a format that cannot do these
    raises BuildError.
    """

    chunk_size: int = 4 * 1024 * 1024
    level: int | None = None
    min_chunk_size: int = 0
    prefetch: Sequence[bytes] = ()
    jobs: int = 0
    external_toc: bool = False
    keep_diff_id: bool = False


class CompanionLayer(msgspec.Struct, frozen=True):
    """A layer that goes to another image: the one beside, whose tag has `suffix` at its end.

    Its annotations say to which layer it belongs, so that `lazylayer.layers.companions.Companions` finds it.
    """

    suffix: str
    descriptor: Descriptor
    data: bytes


class BuiltLayer(msgspec.Struct, frozen=True):
    """A layer that a format built: its descriptor, with annotations, and the digest of its plain tar.

    `companions` are what readers need besides, in other images.
    """

    descriptor: Descriptor
    diff_id: Digest
    companions: tuple[CompanionLayer, ...] = ()


class ImageStore(ABC):
    """Somewhere images can be written to: a layout on disk, a registry. Used by one thread."""

    @abstractmethod
    def has_blob(self, digest: Digest, size: int) -> bool:
        """Whether the blob is there already, whole."""

    @abstractmethod
    def put_blob(self, descriptor: Descriptor, data: IO[bytes]) -> None:
        """Writes the blob that `data` yields. Raises BuildError if it is not what `descriptor` says.

        What was written before an error is not visible under the digest.
        """

    def take_blob(self, descriptor: Descriptor, source: Reference) -> bool:  # noqa: ARG002
        """Takes a blob over from the image `source` without its bytes passing through here.

        Returns False if that cannot be; then it must be put. Raises what `put_blob` raises.
        """
        return False

    @abstractmethod
    def put_manifest(self, reference: Reference, media_type: str, data: bytes) -> Descriptor:
        """Makes `reference` name this manifest (or index), whose blobs are all there.

        This is the last step, and it is atomic: before it nobody sees the image. A reference with a
        digest names nothing: its manifest is only stored, to be part of an index. An image that this
        one needs, under another tag of the same repository, is written before it in the same way.
        """

    def close(self) -> None:
        """Gives back what the store holds."""
