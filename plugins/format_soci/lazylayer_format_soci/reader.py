"""Open a layer by its zTOC: read, verify and decode that, and make the tree and the chunk table of it."""

from __future__ import annotations

from lazylayer.api.labels import label_number
from lazylayer.api.layers import LayerContents
from lazylayer.api.oci import Descriptor, parse_digest, sha256_digest
from lazylayer.api.opened import CompanionImages, OpenedBlob
from lazylayer.errors import FormatError, LayerError
from lazylayer_format_soci.annotations import ZTOC_DIGEST, ZTOC_SIZE
from lazylayer_ztoc.contents import read_contents
from lazylayer_ztoc.decoding import MAX_ZTOC_SIZE, decode_ztoc
from lazylayer_ztoc.inflating import SpanInflater

__all__ = ["open_contents"]

_MEDIA_TYPE = "application/octet-stream"


def open_contents(blob: OpenedBlob, descriptor: Descriptor, companions: CompanionImages) -> LayerContents | None:
    """Return the contents of a layer whose annotations name its zTOC, or None for any other.

    Reads nothing of the blob. The zTOC must have the digest that the annotation promises, verified or not, since it
    is fetched by that.
    """
    promised = descriptor.annotations.get(ZTOC_DIGEST)
    if not promised:
        return None
    try:
        size = label_number(descriptor.annotations, ZTOC_SIZE) or 0
        data = companions.read_blob(Descriptor(_MEDIA_TYPE, parse_digest(promised), size), MAX_ZTOC_SIZE)
        ztoc = decode_ztoc(data)
        if ztoc.compressed_size != blob.size:
            raise FormatError(f"its zTOC describes a layer of {ztoc.compressed_size} bytes; this one has {blob.size}")
        tree, chunks = read_contents(ztoc)
    except LayerError as error:
        raise type(error)(f"layer {descriptor.digest} (soci): {error}") from error
    return LayerContents("soci", tree, chunks, sha256_digest(data), SpanInflater(ztoc))
