"""Make the zTOC of a layer in one pass of its blob."""

from __future__ import annotations

from contextlib import closing
from typing import NamedTuple

from lazylayer.api.oci import Digest
from lazylayer_tarlayers.tarmember import Readable
from lazylayer_ztoc.checkpointing import GzipPass, LayerPass, TarPass
from lazylayer_ztoc.model import Ztoc
from lazylayer_ztoc.tartable import NotIndexableError, PieceReader, read_table

__all__ = ["IndexedLayer", "NotIndexableError", "index_layer", "open_pass"]

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_MAGIC = b"\x2a\x4d\x18"


class IndexedLayer(NamedTuple):
    """The index of a layer, and the digest of its plain tar."""

    ztoc: Ztoc
    diff_id: Digest


def index_layer(blob: Readable, span_size: int, build_tool: str) -> IndexedLayer:
    """Read a layer's blob to its end and return its index.

    The caller verifies the blob. Raises FormatError for a broken layer, NotIndexableError for one that a zTOC
    cannot describe, and the errors of the blob.
    """
    layer = open_pass(blob, span_size)
    pieces = layer.pieces()
    with closing(pieces):
        files = read_table(PieceReader(pieces))
    if not layer.checkpoints:
        raise NotIndexableError("it is empty")
    ztoc = Ztoc(
        build_tool=build_tool,
        compressed_size=layer.compressed_size,
        plain_size=layer.plain_size,
        compression=layer.compression,
        span_size=span_size,
        checkpoints=tuple(layer.checkpoints),
        span_digests=tuple(layer.span_digests),
        files=tuple(files),
    )
    return IndexedLayer(ztoc, layer.plain_digest())


def open_pass(blob: Readable, span_size: int) -> LayerPass:
    """Return the pass for a blob, by its first bytes. Raises NotIndexableError for a layer that has no checkpoints."""
    head = b""
    while len(head) < len(_ZSTD_MAGIC) and (piece := blob.read(len(_ZSTD_MAGIC) - len(head))):
        head += piece
    whole = _Prefixed(head, blob)
    if head.startswith(_GZIP_MAGIC):
        return GzipPass(whole, span_size)
    if head == _ZSTD_MAGIC or (head[1:] == _SKIPPABLE_MAGIC and 0x50 <= head[0] <= 0x5F):
        raise NotIndexableError("it is compressed with zstd, of which a zTOC can hold no checkpoints")
    return TarPass(whole, span_size)


class _Prefixed:
    """A stream with bytes put in front of it."""

    def __init__(self, head: bytes, blob: Readable) -> None:
        self._head = head
        self._blob = blob

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; none only at the end."""
        head, self._head = self._head, b""
        return head or self._blob.read(size)
