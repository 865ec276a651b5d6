"""Inflate one span, from the checkpoint at its start.

A deflate block may begin in the middle of a byte. zlib for Python cannot be told so, but it need not: a few empty
blocks in front, of the right length in bits, end where the block begins. Their last byte carries the block's first
bits. Format: RFC 1951; the windows are those of zlib's example `zran.c`.

All functions may be called from several threads at once; the GIL is released while they inflate.
"""

from __future__ import annotations

from lazylayer.errors import FormatError
from lazylayer_tarlayers.inflate import INFLATE_ERRORS, gzip_inflater, raw_inflater
from lazylayer_ztoc.model import Checkpoint, Ztoc

__all__ = ["SpanInflater", "inflate_span"]

_EMPTY_BLOCKS = (
    b"",
    bytes.fromhex("04e081000000000010fc5f4300"),
    bytes.fromhex("02082000"),
    bytes.fromhex("04e081000000000010fc5f03"),
    bytes.fromhex("020800"),
    bytes.fromhex("04e081000000000010fc5f4300010400"),
    bytes.fromhex("0200"),
    bytes.fromhex("04e081000000000010fc5f43000100"),
)
"""Empty blocks whose last byte leaves room for 0 to 7 bits. A fixed block has 10 bits, so an odd length needs an
empty dynamic block, of 93."""

_TRAILER = 8
"""Bytes of checksum and size behind a gzip member."""
_PIECE = 16 * 1024
"""Bytes to hand over at a time behind the first member: at its end an inflater copies what is left."""


class SpanInflater:
    """Inflates the spans of one layer: the `inflate` of `LayerContents`. It keeps the checkpoints."""

    def __init__(self, ztoc: Ztoc) -> None:
        self._checkpoints = {
            ztoc.span_range(number).start: checkpoint
            for number, checkpoint in enumerate(ztoc.checkpoints)
            if ztoc.compression == "gzip"
        }
        self._plain = ztoc.compression == "uncompressed"

    def __call__(self, data: bytes | memoryview, size: int, offset: int) -> bytes:
        """Return the first `size` plain bytes of the span whose compressed bytes begin at `offset`."""
        if not self._plain:
            return inflate_span(self._checkpoints[offset], data, size)
        if len(data) < size:
            raise FormatError(f"a span has {len(data)} bytes where {size} were promised")
        return bytes(data[:size])


def inflate_span(checkpoint: Checkpoint, data: bytes | memoryview, size: int) -> bytes:
    """Return the first `size` plain bytes of the span that begins at a checkpoint.

    `data` are the span's compressed bytes, from the byte in which the block begins, which the caller has verified.
    The span may go on in further gzip members. Raises FormatError if it is broken, or has fewer bytes.
    """
    if size <= 0:
        return b""
    view = memoryview(data)
    try:
        inflater = raw_inflater(checkpoint.window)
        if checkpoint.bits:
            blocks = _EMPTY_BLOCKS[checkpoint.bits]
            begun = view[0] >> (8 - checkpoint.bits) << (8 - checkpoint.bits) if view else 0
            inflater.decompress(blocks[:-1] + bytes([blocks[-1] | begun]))
            view = view[1:]
        plain: bytes = inflater.decompress(view, size)
        if len(plain) < size and inflater.eof:
            rest = view[len(view) - len(inflater.unused_data) + _TRAILER :]
            plain += _inflate_members(rest, size - len(plain))
    except INFLATE_ERRORS as error:
        raise FormatError(f"invalid span: {error}") from error
    if len(plain) != size:
        raise FormatError(f"a span inflates to {len(plain)} bytes where {size} were promised")
    return plain


def _inflate_members(data: memoryview, size: int) -> bytes:
    """Return up to `size` bytes that whole gzip members, and the beginning of another, inflate to."""
    parts: list[bytes] = []
    while size > 0 and data:
        inflater = gzip_inflater()
        while size > 0 and data and not inflater.eof:
            piece = data[:_PIECE]
            part = inflater.decompress(piece, size)
            left = len(inflater.unused_data) if inflater.eof else len(inflater.unconsumed_tail)
            data = data[len(piece) - left :]
            size -= len(part)
            parts.append(part)
            if not part and left == len(piece):
                raise FormatError("a span does not go on where a gzip member should")
    return b"".join(parts)
