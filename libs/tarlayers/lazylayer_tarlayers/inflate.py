"""Inflate gzip members with bounded memory, by the fastest inflater that is installed.

isal (Intel's ISA-L) inflates about twice as fast as zlib and speaks zlib's interface; without it, zlib does the
same. This is the one place that chooses. `bench/run.py --only inflate` measures both. libdeflate is no
alternative: it must be told how much a whole member inflates to, and a layer's members end with tar headers whose
length is not known beforehand.

All functions may be called from several threads at once; the GIL is released while they inflate. Format:
RFC 1952.
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

__all__ = ["INFLATER", "INFLATE_ERRORS", "GzipReader", "gzip_inflater", "inflate_gzip_member", "raw_inflater"]

INFLATER = "zlib" if _inflater is zlib else "isal"
"""The library that inflates: `isal` or `zlib`."""

INFLATE_ERRORS: tuple[type[Exception], ...] = (zlib.error, _inflater.error)
"""The exceptions that the objects of `gzip_inflater` raise for broken data."""

_GZIP = 16 + zlib.MAX_WBITS


def gzip_inflater() -> Any:
    """Return a new object that inflates one gzip member, with the methods of `zlib.decompressobj`."""
    return _inflater.decompressobj(_GZIP)


def raw_inflater(window: bytes = b"") -> Any:
    """Return a new object that inflates a deflate stream, which may refer back to the bytes of `window`."""
    return _inflater.decompressobj(-zlib.MAX_WBITS, window) if window else _inflater.decompressobj(-zlib.MAX_WBITS)


def inflate_gzip_member(data: bytes | memoryview, size: int) -> bytes:
    """Return the first `size` bytes that the gzip member at the start of `data` inflates to.

    The member may inflate to more, and other bytes may follow it. Neither is read, nor the member's
    checksum: the caller verifies the bytes. Never inflates more than `size` bytes; at the end memory
    holds them twice for a moment, beside a copy of the rest of `data`. Raises FormatError if the member is
    broken, or inflates to less than `size` bytes.
    """
    if size <= 0:
        return b""
    try:
        inflated: bytes = gzip_inflater().decompress(data, size)
    except INFLATE_ERRORS as error:
        raise FormatError(f"invalid gzip member: {error}") from error
    if len(inflated) != size:
        raise FormatError(f"a gzip member inflates to {len(inflated)} bytes where {size} were promised")
    return inflated


class GzipReader:
    """Reads what one gzip member inflates to, piece by piece. Used by one thread.

    The member begins at the start of `data`; bytes behind it are not read.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._rest: bytes | memoryview = data
        self._object = gzip_inflater()

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes; fewer only at the end of the member. Raises FormatError."""
        if size <= 0 or self._object.eof:
            return b""
        try:
            piece: bytes = self._object.decompress(self._rest, size)
        except INFLATE_ERRORS as error:
            raise FormatError(f"invalid gzip member: {error}") from error
        self._rest = self._object.unconsumed_tail
        if len(piece) < size and not self._object.eof:
            raise FormatError("a gzip member ends too early")
        return piece
