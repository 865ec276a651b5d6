"""Read and write the footers of zstd:chunked layers, in the skippable frames that hold footer and TOC.

Sources: RFC 8878, 3.1.2 (skippable frames: magic, size, content, which decoders pass over);
`estargz/zstdchunked/zstdchunked.go` of the Go stargz-snapshotter (the footer of 40 bytes);
`pkg/chunked/internal` of containers/storage (that of 64 bytes, and the annotation).
All numbers are 64 bits, little-endian.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from lazylayer.errors import FormatError

__all__ = [
    "FRAME_HEADER",
    "LONGEST_FOOTER",
    "TocPlace",
    "find_footer",
    "make_footer",
    "parse_position",
    "skippable_frame",
]

FRAME_HEADER = 8
"""Bytes of magic and size in front of a skippable frame's content."""
LONGEST_FOOTER = 64
"""Bytes."""

_SKIPPABLE = b"\x50\x2a\x4d\x18"
_OLD_MAGIC = b"GnUlInUx"
_NEW_MAGIC = b"GNUlInUx"
_OLD = struct.Struct("<QQQQ8s")
_NEW = struct.Struct("<QQQQQQQ8s")
_TYPE = 1


class TocPlace(NamedTuple):
    """The place of the compressed TOC in the blob, its size there, and its size inflated, in bytes."""

    offset: int
    size: int
    inflated: int


def find_footer(tail: bytes) -> TocPlace | None:
    """Return the place that the footer at the end of `tail` names, or None without such a footer.

    Raises FormatError for a footer of an unknown kind of TOC.
    """
    if tail[-8:] == _OLD_MAGIC and len(tail) >= _OLD.size:
        offset, size, inflated, kind, _ = _OLD.unpack(tail[-_OLD.size :])
    elif tail[-8:] == _NEW_MAGIC and len(tail) >= _NEW.size:
        offset, size, inflated, kind, *_ = _NEW.unpack(tail[-_NEW.size :])
    else:
        return None
    if kind != _TYPE:
        raise FormatError(f"its table of contents is of the unknown kind {kind}")
    return TocPlace(offset, size, inflated)


def parse_position(text: str) -> TocPlace:
    """Return the place in an annotation: offset, size, inflated size and kind, with colons between.

    Raises FormatError.
    """
    parts = text.split(":")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts):
        raise FormatError(f"invalid place of its table of contents: {text[:80]!r}")
    offset, size, inflated, kind = map(int, parts)
    if kind != _TYPE:
        raise FormatError(f"its table of contents is of the unknown kind {kind}")
    return TocPlace(offset, size, inflated)


def make_footer(place: TocPlace, *, new: bool) -> bytes:
    """Return the footer in its frame: that of 64 bytes, without tar-split data, if `new`."""
    if new:
        return skippable_frame(_NEW.pack(*place, _TYPE, 0, 0, 0, _NEW_MAGIC))
    return skippable_frame(_OLD.pack(*place, _TYPE, _OLD_MAGIC))


def skippable_frame(content: bytes) -> bytes:
    """Return a frame that zstd decoders pass over."""
    return _SKIPPABLE + len(content).to_bytes(4, "little") + content
