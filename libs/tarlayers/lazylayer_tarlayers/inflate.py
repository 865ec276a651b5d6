"""Inflating gzip members with bounded memory, by the fastest inflater that is installed.

isal (Intel's ISA-L) inflates about twice as fast as zlib and speaks zlib's interface; where it is
not installed, zlib does the same. `bench/run.py --only inflate` measures both. libdeflate is no alternative:
it wants to know how much a whole member inflates to, and the members of a layer end with tar
headers whose length is not known beforehand.

All functions may be called from several threads at once; the GIL is released while they inflate.
Format: RFC 1952.
"""

from __future__ import annotations

import zlib
from typing import Any

from lazylayer.errors import FormatError

_inflater: Any = zlib
try:
    from isal import isal_zlib

    _inflater = isal_zlib
except ImportError:
    pass

__all__ = ["INFLATER", "GzipReader", "inflate_gzip_member"]

INFLATER = "zlib" if _inflater is zlib else "isal"
"""The library that inflates."""

_ERRORS = (zlib.error, _inflater.error)
_GZIP = 16 + zlib.MAX_WBITS


def inflate_gzip_member(data: bytes | memoryview, size: int) -> bytes:
    """The first `size` bytes that the gzip member at the start of `data` inflates to.

    The member may inflate to more, and other bytes may follow it; neither is looked at, so its
    checksum is not either: whoever calls this verifies what comes out. Never inflates more than
    `size` bytes; at the end they are held twice for a moment, beside a copy of what is left of
    `data`. Raises FormatError if the member is broken, or inflates to less than `size` bytes.
    """
    if size <= 0:
        return b""
    try:
        inflated: bytes = _inflater.decompressobj(_GZIP).decompress(data, size)
    except _ERRORS as error:
        raise FormatError(f"a gzip member is broken: {error}") from error
    if len(inflated) != size:
        raise FormatError(f"a gzip member inflates to {len(inflated)} bytes where {size} were promised")
    return inflated


class GzipReader:
    """Reads what one gzip member inflates to, piece by piece. Used by one thread.

    The member starts at the start of `data`; what follows it is not looked at.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._rest: bytes | memoryview = data
        self._object = _inflater.decompressobj(_GZIP)

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end of the member. Raises FormatError."""
        if size <= 0 or self._object.eof:
            return b""
        try:
            piece: bytes = self._object.decompress(self._rest, size)
        except _ERRORS as error:
            raise FormatError(f"a gzip member is broken: {error}") from error
        self._rest = self._object.unconsumed_tail
        if len(piece) < size and not self._object.eof:
            raise FormatError("a gzip member ends too early")
        return piece
