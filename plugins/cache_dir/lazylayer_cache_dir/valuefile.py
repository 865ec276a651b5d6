"""The file of one value: how it is written, and how it is known to be whole.

A file is a header of 16 bytes and the value::

    offset  0   4 bytes   b"LLV1"
            4   4 bytes   crc32 of the file's name and the value, little-endian
            8   8 bytes   bytes in the value, little-endian
           16             the value

After a power cut a renamed file may lack bytes that were written before the rename (nothing is
synced, since a cache can be filled again), and a disk may change bytes: length and checksum tell.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable
from zlib import crc32 as zlib_crc32

from lazylayer.api.cache import CachedValue

try:  # ten times as fast, where there is a wheel of isal
    from isal.isal_zlib import crc32
except ImportError:
    crc32 = zlib_crc32

__all__ = ["HEADER_SIZE", "DamagedFileError", "FileValue", "checksum", "hold", "pack_header", "read_value", "touch"]

_HEADER = struct.Struct("<4sIQ")
_MAGIC = b"LLV1"
HEADER_SIZE = _HEADER.size
"""Bytes in front of the value."""

_UTIME_OMIT = (1 << 30) - 2
_NANOSECONDS = 1_000_000_000
_futimens: Callable[..., int] = ctypes.CDLL(None, use_errno=True).futimens
_Timespecs = ctypes.c_long * 4


class DamagedFileError(Exception):
    """The file is not what was once written."""


def checksum(name: str, data: bytes) -> int:
    """Return the checksum of a file of this name with this value."""
    return int(crc32(data, zlib_crc32(name.encode())))


def pack_header(name: str, data: bytes) -> bytes:
    """Return the header of `data` in the file `name`."""
    return _HEADER.pack(_MAGIC, checksum(name, data), len(data))


def read_value(fd: int, name: str, file_size: int) -> bytes:
    """Return the value in an open file, checked. Raises DamagedFileError or OSError."""
    header = os.pread(fd, HEADER_SIZE, 0)
    if len(header) < HEADER_SIZE:
        raise DamagedFileError(f"{file_size} bytes are no header")
    magic, expected, size = _HEADER.unpack(header)
    if magic != _MAGIC or HEADER_SIZE + size != file_size:
        raise DamagedFileError("the header is not of this file")
    data = os.pread(fd, size, HEADER_SIZE)
    if len(data) != size or checksum(name, data) != expected:
        raise DamagedFileError("the checksum is wrong")
    return data


def touch(fd: int) -> None:
    """Note a use: set the time of access to now and leave all others (os.utime cannot).

    The time of modification must stay untouched, since `FileValue` knows by it that no process wrote to
    the file; setting it to what it was would hide what was written just before.
    """
    seconds, nanoseconds = divmod(time.time_ns(), _NANOSECONDS)
    _futimens(fd, _Timespecs(seconds, nanoseconds, 0, _UTIME_OMIT))  # where it fails, order suffers only


def hold(fd: int) -> bool:
    """Keep an open file from being evicted until it is closed; return False if it is being evicted."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(fd).st_nlink > 0


class FileValue(CachedValue):
    """A value in an open file, which was checked. It goes on when the file is unlinked.

    Such files are never written to again. If one is all the same, reading raises OSError.

    :param fd: the open file; closed by `close`.
    :param modified: the time of modification from before the file was checked, in nanoseconds.
    """

    __slots__ = ("_fd", "_modified", "_open", "size")

    def __init__(self, fd: int, size: int, modified: int) -> None:
        self.size = size
        self._modified = modified
        self._fd = fd
        self._open = [fd]

    def read(self, offset: int, size: int) -> bytes:  # noqa: D102 - as in CachedValue
        wanted = min(size, self.size - offset)
        if wanted <= 0:
            return b""
        if not self._open:
            raise OSError(errno.EBADF, "the value is closed")
        data = os.pread(self._fd, wanted, HEADER_SIZE + offset)
        status = os.fstat(self._fd)
        if status.st_mtime_ns != self._modified or status.st_size != HEADER_SIZE + self.size or len(data) != wanted:
            raise OSError(errno.EIO, "a file of the cache was changed")
        return data

    def close(self) -> None:
        """Close the file; do nothing when called again."""
        try:
            fd = self._open.pop()  # in one step, so that no two threads close it
        except IndexError:
            return
        os.close(fd)

    def __del__(self) -> None:
        self.close()
