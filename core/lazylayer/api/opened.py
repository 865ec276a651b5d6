"""The objects that hooks receive: an opened blob, layer, image or file, as far as a plugin may use it.

These are Protocols, so that a plugin can be typed, and tested with stand-ins, without the engine. The core
passes its own objects. Call what is listed here and nothing else. Everything may be called from any
thread, and from several at once, unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from lazylayer.api.events import LayerState
from lazylayer.api.layers import LayerContents
from lazylayer.api.oci import Descriptor, Digest, Reference, ResolvedImage
from lazylayer.api.tree import Entry, Tree

__all__ = ["CompanionImages", "OpenedBlob", "OpenedFile", "OpenedImage", "OpenedLayer"]


class OpenedBlob(Protocol):
    """Random access to the bytes of one layer, as `lazylayer_open_layer` is given it."""

    @property
    def digest(self) -> Digest:
        """The digest that the blob was asked for by. Its bytes are not checked against it."""

    @property
    def size(self) -> int:
        """Bytes in the blob. Asks the registry where neither a descriptor nor a cache says.

        Raises ResolveError.
        """

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes from `offset`, from a cache or fetched in one request.

        The bytes are unverified: verify what you make of them. Reads of one blob wait for each other. Raises
        FormatError for a range outside the blob, and ResolveError.
        """


class CompanionImages(Protocol):
    """The images and blobs beside a layer, as hooks are given them. Use it in the calling thread.

    No request is made before a method is called. What was read is cached, so that layers can be opened again
    while their registry is away.
    """

    def read_layer(self, suffix: str, annotations: Mapping[str, str], max_size: int) -> bytes:
        """Return a layer of the image whose tag is this image's tag followed by `suffix`.

        :param annotations: the layer's descriptor has these annotations, and maybe more.
        :param max_size: the largest blob to accept, in bytes.
        :returns: the blob, checked against the digest in that image's manifest, or from a cache. Check that it
            belongs to the layer being opened.

        Raises ResolveError (NotFoundError if the image or layer does not exist), FormatError or VerificationError,
        which name the other image.
        """

    def read_manifest(self, digest: Digest) -> bytes:
        """Return a manifest of the image's repository as it is, checked against its digest.

        Raises ResolveError (NotFoundError if it is not there), FormatError or VerificationError.
        """

    def read_blob(self, descriptor: Descriptor, max_size: int) -> bytes:
        """Return a blob of the image's repository, checked against its digest.

        :param max_size: the largest blob to accept, in bytes.

        Raises ResolveError (NotFoundError if it is not there), FormatError or VerificationError.
        """


class OpenedLayer(Protocol):
    """An opened layer. It can be used until it is closed; a reader that keeps it longer gets ResolveError."""

    @property
    def reference(self) -> Reference:
        """The image that the layer was opened for."""

    @property
    def descriptor(self) -> Descriptor:
        """The layer's descriptor, with its size and annotations."""

    @property
    def digest(self) -> Digest:
        """The digest of the layer's blob."""

    @property
    def contents(self) -> LayerContents:
        """The answer of the format plugin: tree, chunks, format and TOC digest."""

    @property
    def tree(self) -> Tree:
        """The layer's own entries, with whiteouts and opaque directories."""

    @property
    def complete(self) -> bool:
        """True if every chunk was seen here, or is elsewhere on this machine."""

    @property
    def closed(self) -> bool:
        """True once the layer was closed; nothing more is fetched then."""

    def state(self) -> LayerState:
        """Return how much of the layer is here, and its last error."""

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """Return the verified bytes of a file from `offset`, at most `size`; fewer only at its end.

        Missing chunks are fetched as for any reader. Raises LayerError or ResolveError.
        """

    def fetch(self, entries: Iterable[Entry]) -> None:
        """Fetch the missing chunks of these files in as few requests as possible.

        Chunks in flight for others are not waited for. Raises LayerError or ResolveError.
        """


class OpenedFile(Protocol):
    """A file of an opened image; or a directory, or a device, if a path led there."""

    @property
    def layer(self) -> OpenedLayer:
        """The layer that holds the file."""

    @property
    def entry(self) -> Entry:
        """The file's entry in the tree of its layer."""

    @property
    def path(self) -> bytes:
        """The absolute path of the file, without symlinks."""

    def read(self, offset: int, size: int) -> bytes:
        """Return the file's verified bytes; see `OpenedLayer.read`."""


class OpenedImage(Protocol):
    """An opened image: its layers, and its files as a container would see them."""

    @property
    def resolved(self) -> ResolvedImage:
        """The image's reference, manifest and config."""

    @property
    def layers(self) -> Sequence[OpenedLayer]:
        """The opened layers, the lowest first."""

    def find(self, path: bytes) -> OpenedFile | None:
        """Return what a container would find at `path`, symlinks followed, or None."""

    def names(self, path: bytes) -> list[bytes]:
        """Return the names in the directory at `path`; none if `path` is not a directory."""

    def file(self, layer: OpenedLayer, path: bytes, entry: Entry) -> OpenedFile:
        """Return a file of one of the image's layers that a policy knows by its entry.

        :param path: the file's absolute path in the layer, without symlinks.
        """

    def fetch(self, files: Iterable[OpenedFile]) -> None:
        """Fetch the missing chunks of these files, all layers concurrently, in as few requests as possible.

        Chunks in flight for others are not waited for. When all layers are done, raises the first LayerError
        or ResolveError, in the order of `files`.
        """
