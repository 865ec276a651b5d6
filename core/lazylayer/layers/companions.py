"""Read what stands beside an image, where a format keeps parts of its layers: in its repository, or under other tags.

eStargz can have tables of contents in an image `TAG-esgztoc`; SOCI has an index in the repository.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import (
    MAX_TAG_LENGTH,
    Descriptor,
    Digest,
    Platform,
    Reference,
    parse_digest,
    sha256_digest,
)
from lazylayer.errors import FormatError, NotFoundError, ResolveError, VerificationError
from lazylayer.fetching.blob import Blob
from lazylayer.fetching.opening import Opening

if TYPE_CHECKING:
    from lazylayer.plugin.hooks import Hooks

__all__ = ["Companions", "annotate_layers", "companion_reference"]


def annotate_layers(
    hooks: Hooks, reference: Reference, layers: Sequence[Descriptor], manifest: bytes, opening: Opening
) -> list[Descriptor]:
    """Return the descriptors of an image's layers, with what plugins find beside the image.

    `manifest` is the image's; if it is empty, the layers' own annotations, which are labels then, tell its digest.
    """
    if all(any(info.promises(each.annotations) for info in hooks.formats()) for each in layers):
        return list(layers)
    known = {sha256_digest(manifest): manifest} if manifest else {}
    companions = Companions(hooks, reference, opening, known)
    labels = {} if manifest else layers[0].annotations
    return hooks.annotate_layers(next(iter(known), None), labels, companions, layers)


def companion_reference(reference: Reference, suffix: str) -> Reference:
    """Return the reference of the image beside `reference` whose tag ends with `suffix`.

    A digest in `reference` does not apply to another image, and is left out. Raises NotFoundError for a reference
    without a tag, or with one too long for the suffix.
    """
    if not reference.tag:
        raise NotFoundError(
            f"{reference} has no tag; what stands beside it is found under TAG{suffix}, so name its tag"
        )
    tag = reference.tag + suffix
    if len(tag) > MAX_TAG_LENGTH:
        raise NotFoundError(f"{reference}: the tag {tag} would be longer than {MAX_TAG_LENGTH} letters")
    return Reference(repository=reference.repository, host=reference.host, tag=tag, scheme=reference.scheme)


class Companions:
    """The images and blobs beside a layer: the `CompanionImages` that hooks are given. Used by one thread.

    Resolvers are asked as for the image itself: at the same hosts, with the credentials of `reference`. What was
    read is kept by `opening`, so that the layer can be opened again while its registry is away.
    """

    def __init__(
        self, hooks: Hooks, reference: Reference, opening: Opening, known: Mapping[Digest, bytes] = {}
    ) -> None:
        self._hooks, self._reference = hooks, reference
        self._opening, self._known = opening, known

    def read_layer(self, suffix: str, annotations: Mapping[str, str], max_size: int) -> bytes:
        """Return a layer of a companion image, from a cache or fetched; see `CompanionImages.read_layer`."""
        key = f"{self._opening.digest}:{suffix}"
        data = self._opening.recall(key)
        if data is None or len(data) > max_size:
            _, data = self.find_layer(suffix, annotations, max_size)
            self._opening.keep(key, data)
        return data

    def read_manifest(self, digest: Digest) -> bytes:
        """Return a manifest of the repository; see `CompanionImages.read_manifest`."""
        reference, data = self._reference, self._known.get(digest) or self._opening.recall(digest)
        if data is None or sha256_digest(data) != digest:
            other = Reference(reference.repository, reference.host, "", parse_digest(digest), reference.scheme)
            data = self._hooks.resolve_image(other, Platform(), on_behalf_of=reference).manifest_bytes
            self._opening.keep(digest, data)
        if sha256_digest(data) != digest:
            raise FormatError(f"{reference}: {digest} is not the digest of a manifest")
        return data

    def read_blob(self, descriptor: Descriptor, max_size: int) -> bytes:
        """Return a blob of the repository; see `CompanionImages.read_blob`."""
        data = self._opening.recall(descriptor.digest)
        if data is None or len(data) > max_size or sha256_digest(data) != descriptor.digest:
            data = self._fetch(self._reference, descriptor, max_size)
            self._opening.keep(descriptor.digest, data)
        return data

    def find_layer(self, suffix: str, annotations: Mapping[str, str], max_size: int) -> tuple[Descriptor, bytes]:
        """Do as `read_layer`, past the cache, and return the descriptor too."""
        other = companion_reference(self._reference, suffix)
        try:
            image = self._hooks.resolve_image(other, Platform(), on_behalf_of=self._reference)
        except ResolveError as error:
            raise type(error)(
                f"a part of the layer is in the image {other}, which failed to resolve: {error}; "
                "copy it to where the layer's own image is"
            ) from error
        for descriptor in image.manifest.layers:
            if annotations.items() <= descriptor.annotations.items():
                return descriptor, self._fetch(other, descriptor, max_size)
        raise NotFoundError(
            f"a part of the layer should be in the image {other}, but nothing there belongs to the layer; "
            "the two images are not of the same conversion: copy both again"
        )

    def _fetch(self, other: Reference, descriptor: Descriptor, max_size: int) -> bytes:
        resolve = partial(self._hooks.resolve_blob, other, descriptor, on_behalf_of=self._reference)
        with closing(Blob(resolve, descriptor.digest, descriptor.size)) as blob:
            size = blob.source().size
            if not 0 < size <= max_size:
                raise FormatError(f"{other}: {descriptor.digest} has {size} bytes; at most {max_size} are believed")
            data = b"".join(piece for _, piece in blob.stream([ByteRange(0, size)]))
        found = sha256_digest(data)
        if found != descriptor.digest:
            raise VerificationError(f"blob {descriptor.digest} is damaged: what came has the digest {found}")
        return data
