"""Read images that stand beside another one: in the same place, under its tag with a suffix.

A format may keep a part of each layer outside of it, as eStargz can keep tables of contents in an image
`TAG-esgztoc`. A format plugin is given `Companions` to read them when it opens a layer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import MAX_TAG_LENGTH, Descriptor, Platform, Reference
from lazylayer.errors import FormatError, NotFoundError, ResolveError, VerificationError
from lazylayer.fetching.blob import Blob

if TYPE_CHECKING:
    from lazylayer.fetching.rangestore import Opening
    from lazylayer.plugin.hooks import Hooks

__all__ = ["Companions", "companion_reference"]


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
    """The images beside the one that a layer belongs to: the `CompanionImages` of its format plugin.

    No request is made before `read_layer` is called. Then the resolvers are asked as for the image itself: at the
    same hosts, with the credentials of `reference`. What was read is kept by `opening`, so that the layer can
    be opened again while its registry is away. Used by one thread.
    """

    def __init__(self, hooks: Hooks, reference: Reference, opening: Opening) -> None:
        self._hooks = hooks
        self._reference = reference
        self._opening = opening

    def read_layer(self, suffix: str, annotations: Mapping[str, str], max_size: int) -> bytes:
        """Return a layer of a companion image, from a cache or fetched; see `CompanionImages.read_layer`."""
        key = f"{self._opening.digest}:{suffix}"
        data = self._opening.recall(key)
        if data is None or len(data) > max_size:
            _, data = self.find_layer(suffix, annotations, max_size)
            self._opening.keep(key, data)
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
        found = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if found != descriptor.digest:
            raise VerificationError(f"blob {descriptor.digest} is damaged: what came has the digest {found}")
        return data
