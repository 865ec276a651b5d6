"""Inflate a gzip stream with zlib itself, so that inflating can stop at the end of a deflate block.

Python's zlib module can neither stop there nor tell the window, so `ctypes` calls libz. The GIL is released during each
call. Source: zlib.h of zlib 1.2.13, "inflate" with Z_BLOCK, and "inflateGetDictionary".
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

from lazylayer.errors import BuildError, FormatError
from lazylayer_ztoc.model import WINDOW_SIZE

__all__ = ["ZlibStream"]

_LIBRARY = "libz.so.1"
_GZIP = 16 + 15
"""The window bits that make zlib expect a gzip header."""
_OK, _STREAM_END, _BUFFER_ERROR = 0, 1, -5
_BLOCK = 5
"""The flush mode that returns at the end of each block."""
_AT_BLOCK_END, _IN_LAST_BLOCK, _UNUSED_BITS = 128, 64, 7


class _State(ctypes.Structure):
    """A z_stream."""

    _fields_ = (
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint),
        ("total_in", ctypes.c_ulong),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint),
        ("total_out", ctypes.c_ulong),
        ("msg", ctypes.c_char_p),
        ("state", ctypes.c_void_p),
        ("zalloc", ctypes.c_void_p),
        ("zfree", ctypes.c_void_p),
        ("opaque", ctypes.c_void_p),
        ("data_type", ctypes.c_int),
        ("adler", ctypes.c_ulong),
        ("reserved", ctypes.c_ulong),
    )


@functools.cache
def _libz() -> Any:
    """Load zlib. Raises BuildError."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise BuildError(f"cannot load {_LIBRARY}: {error}; install zlib (Debian: zlib1g)") from error
    library.zlibVersion.restype = ctypes.c_char_p
    for name in ("inflateInit2_", "inflate", "inflateReset2", "inflateGetDictionary", "inflateEnd"):
        getattr(library, name).restype = ctypes.c_int
    stream = ctypes.POINTER(_State)
    library.inflateInit2_.argtypes = [stream, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    library.inflate.argtypes = [stream, ctypes.c_int]
    library.inflateReset2.argtypes = [stream, ctypes.c_int]
    library.inflateGetDictionary.argtypes = [stream, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint)]
    library.inflateEnd.argtypes = [stream]
    return library


class ZlibStream:
    """Inflates gzip members from the bytes of `feed` into the buffer `output`. Used by one thread; close it."""

    def __init__(self, output: bytearray) -> None:
        self._library = _libz()
        self._state = _State()
        self._pointer = ctypes.byref(self._state)
        self._output = (ctypes.c_char * len(output)).from_buffer(output)
        self._output_start = ctypes.addressof(self._output)
        self._input = b""
        self._open = False
        version = self._library.zlibVersion()
        if self._library.inflateInit2_(self._pointer, _GZIP, version, ctypes.sizeof(_State)) != _OK:
            raise BuildError(
                f"{_LIBRARY} {version.decode(errors='replace')} cannot inflate gzip; install another version"
            )
        self._open = True

    @property
    def left(self) -> int:
        """Bytes of the last `feed` that were not inflated yet."""
        return int(self._state.avail_in)

    @property
    def unused_bits(self) -> int:
        """Return how many bits of the last byte that was read belong to the next block, 0 to 7."""
        return int(self._state.data_type) & _UNUSED_BITS

    @property
    def before_block(self) -> bool:
        """Return True between two blocks of a member, or before its first one."""
        return int(self._state.data_type) & (_AT_BLOCK_END | _IN_LAST_BLOCK) == _AT_BLOCK_END

    def feed(self, data: bytes, start: int = 0) -> None:
        """Inflate `data` from `start` next; what was left of the last feed is dropped."""
        self._input = data  # zlib reads it in place
        self._state.next_in = (ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0) + start
        self._state.avail_in = len(data) - start

    def inflate(self, at: int) -> tuple[int, bool]:
        """Inflate up to the end of a block, of the input or of the output buffer, from its position `at`.

        Return how many bytes were written, and True at the end of a member. Raises FormatError.
        """
        room = len(self._output) - at
        self._state.next_out = self._output_start + at
        self._state.avail_out = room
        result = self._library.inflate(self._pointer, _BLOCK)
        if result not in (_OK, _STREAM_END, _BUFFER_ERROR):
            reason = (self._state.msg or b"a preset dictionary is needed").decode(errors="replace")
            raise FormatError(f"invalid gzip stream: {reason}")
        return room - self._state.avail_out, result == _STREAM_END

    def window(self) -> bytes:
        """Return the last plain bytes of this member, WINDOW_SIZE at most."""
        window = ctypes.create_string_buffer(WINDOW_SIZE)
        size = ctypes.c_uint()
        self._library.inflateGetDictionary(self._pointer, window, ctypes.byref(size))
        return window.raw[: size.value]

    def next_member(self) -> None:
        """Expect another member."""
        self._library.inflateReset2(self._pointer, _GZIP)

    def close(self) -> None:
        """Release zlib's memory. Closing again does nothing."""
        if self._open:
            self._open = False
            self._library.inflateEnd(self._pointer)

    def __del__(self) -> None:
        self.close()
