"""Images that stand beside another one: in the same place, under its tag with a suffix.

A format may keep a part of each layer outside of it, as eStargz can keep tables of contents in an image
`TAG-esgztoc`. `Companions` is what a format plugin is given to read them, when a layer is opened;
`write_companions` writes them, in front of the image that needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING

from lazylayer.api.cache import Cache
from lazylayer.api.oci import MAX_TAG_LENGTH, Descriptor, Digest, Platform, Reference
from lazylayer.errors import FormatError, NotFoundError, ResolveError
from lazylayer.fetching.wholeblob import BlobStream

if TYPE_CHECKING:
    from lazylayer.plugin.hooks import Hooks

__all__ = ["Companions", "companion_reference"]


def companion_reference(reference: Reference, suffix: str) -> Reference:
    """The reference of the image beside `reference` whose tag has `suffix` at its end.

    A digest in `reference` says nothing of another image, and is left out. Raises NotFoundError for a
    reference that has no tag, or one so long that nothing fits behind it.
    """
    if not reference.tag:
        raise NotFoundError(
            f"{reference} has no tag; what stands beside it is found under TAG{suffix}, so name its tag"
        )
    tag = reference.tag + suffix
    if len(tag) > MAX_TAG_LENGTH:
        raise NotFoundError(f"{reference}: there is no tag {tag}, since tags have {MAX_TAG_LENGTH} letters at most")
    return Reference(repository=reference.repository, host=reference.host, tag=tag, scheme=reference.scheme)


class Companions:
    """The images beside the one that `layer` belongs to, for the format plugin that opens it.

    Nothing is asked of anybody before `read_layer` is called. Then the resolvers are asked as for the
    image itself: at the same hosts, with the credentials of `reference`. What was read is kept in `ranges`,
    so that a layer can be opened again while its registry is away. Used by one thread.
    """

    def __init__(self, hooks: Hooks, reference: Reference, layer: Digest, ranges: Cache) -> None:
        self._hooks = hooks
        self._reference = reference
        self._layer = layer
        self._ranges = ranges
        self._from_cache: set[str] = set()

    def read_layer(self, suffix: str, annotations: Mapping[str, str], max_size: int) -> bytes:
        """The blob of the layer with these annotations, in the image whose tag has `suffix` behind this one's.

        The bytes are those that the other image's manifest promises; no more than `max_size` bytes are
        believed. Whether they belong to the layer being opened is for the caller to verify. Raises
        ResolveError (NotFoundError when there is no such image, or no such layer in it), FormatError and
        VerificationError; the messages name the other image.
        """
        key = f"{self._layer}:{suffix}"
        data = self._ranges.get(key)
        if data is not None and len(data) <= max_size:
            self._from_cache.add(key)
            return data
        _, data = self.find_layer(suffix, annotations, max_size)
        self._ranges.put(key, data)
        return data

    def find_layer(self, suffix: str, annotations: Mapping[str, str], max_size: int) -> tuple[Descriptor, bytes]:
        """As `read_layer`, with the descriptor, and past the cache."""
        other = companion_reference(self._reference, suffix)
        try:
            image = self._hooks.resolve_image(other, Platform(), on_behalf_of=self._reference)
        except ResolveError as error:
            raise type(error)(
                f"a part of the layer is in the image {other}, which cannot be had: {error}; "
                "copy it to where the layer's own image is"
            ) from error
        for descriptor in image.manifest.layers:
            if annotations.items() <= descriptor.annotations.items():
                return descriptor, self._fetch(other, descriptor, max_size)
        raise NotFoundError(
            f"a part of the layer should be in the image {other}, but nothing there belongs to the layer; "
            "the two images are not of the same conversion: copy both again"
        )

    def forget_cached(self) -> bool:
        """Drops what came from the cache, since it proved bad; whether there was anything."""
        keys, self._from_cache = self._from_cache, set()
        for key in keys:
            self._ranges.remove(key)
        return bool(keys)

    def _fetch(self, other: Reference, descriptor: Descriptor, max_size: int) -> bytes:
        with closing(self._hooks.resolve_blob(other, descriptor, on_behalf_of=self._reference)) as source:
            if not 0 < source.size <= max_size:
                raise FormatError(
                    f"{other}: {descriptor.digest} has {source.size} bytes; at most {max_size} are believed"
                )
            with closing(BlobStream(source, descriptor, lambda _: None)) as stream:
                return stream.read()
