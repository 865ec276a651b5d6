"""Describe a layer as a zTOC does: its files, its checkpoints and the digests of its spans.

A *span* is what lies between two checkpoints. Span `i` holds the plain bytes from `checkpoints[i].out_offset` up to
the next checkpoint's, and at the end up to the end of the plain tar. Its compressed bytes begin at `in_offset`, or one
byte before it where `bits` is not 0, and end at the next checkpoint's `in_offset`, or at the end of the layer. So
neighbouring spans share a byte where `bits` is not 0.

Everything here is immutable and safe to use from any thread.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import Digest

__all__ = ["WINDOW_SIZE", "Checkpoint", "Compression", "FileRecord", "Ztoc"]

WINDOW_SIZE = 32 * 1024
"""Plain bytes before a checkpoint that deflate may refer back to."""

Compression = Literal["gzip", "uncompressed"]
"""Compression of the layer: `uncompressed` is a plain tar."""


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """A place in the layer where inflating can begin: the start of a deflate block.

    `in_offset` is the first whole byte of the block; the `bits` highest bits of the byte before it belong to the
    block too. `out_offset` is where its plain bytes lie in the plain tar. `window` holds the WINDOW_SIZE plain bytes
    before it, the oldest first and zeros where there are fewer, or nothing where `out_offset` is 0.
    """

    in_offset: int
    out_offset: int
    bits: int = 0
    window: bytes = b""


class FileRecord(msgspec.Struct, frozen=True, gc=False):
    """One entry of the tar archive.

    `type` is one of `reg`, `dir`, `symlink`, `hardlink`, `char`, `block` and `fifo`. `name` and `linkname` are as the
    archive has them. `data_offset` is where the data begins in the plain tar; `pax` are all PAX records of the entry.
    """

    name: bytes
    type: str
    data_offset: int = 0
    size: int = 0
    linkname: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    uname: bytes = b""
    gname: bytes = b""
    mtime_ns: int = 0
    devmajor: int = 0
    devminor: int = 0
    pax: tuple[tuple[bytes, bytes], ...] = ()


class Ztoc(msgspec.Struct, frozen=True):
    """The index of a layer. `plain_size` is the size of the plain tar, as far as its last entry at least."""

    build_tool: str
    compressed_size: int
    plain_size: int
    compression: Compression
    span_size: int
    checkpoints: tuple[Checkpoint, ...]
    span_digests: tuple[Digest, ...]
    files: tuple[FileRecord, ...]

    def span_range(self, number: int) -> ByteRange:
        """Return where the compressed bytes of a span lie in the layer: what its digest is of."""
        checkpoint = self.checkpoints[number]
        start = checkpoint.in_offset - (1 if checkpoint.bits else 0)
        last = number + 1 == len(self.checkpoints)
        return ByteRange(start, self.compressed_size if last else self.checkpoints[number + 1].in_offset)

    def plain_range(self, number: int) -> ByteRange:
        """Return where the plain bytes of a span lie in the plain tar."""
        last = number + 1 == len(self.checkpoints)
        end = self.plain_size if last else self.checkpoints[number + 1].out_offset
        return ByteRange(self.checkpoints[number].out_offset, end)
