"""Count what a directory holds: counters in a file, shared by all processes that use the directory.

The directory has 256 shards. The file holds, as little-endian signed integers of 8 bytes, the bytes
and entries of all shards together, and then those of each shard::

    offset  0   8 bytes   b"LLUSAGE1"
            8   16 bytes  bytes and entries in all
           24   16 bytes  bytes and entries of shard 00, and so on

Files are added and removed while holding the lock, together with the counters, so that
they are right unless a process was killed in between; and then they say too much, never too little:
an entry is counted before it appears and discounted after it vanished. Counting a shard again, with
the lock held, puts it right. The file is read and written, not mapped: a mapped file that somebody
truncates, or that a full disk cannot hold, would kill the process.

The lock is `flock` on the file between processes and between instances, and a lock of the instance
between its threads. It is held for a few system calls, or for the listing of one shard.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
from pathlib import Path
from typing import NamedTuple, Self

__all__ = ["SHARDS", "Held", "Usage"]

SHARDS = 256
"""Number of subdirectories."""

_MAGIC = b"LLUSAGE1"
_PAIR = struct.Struct("<qq")
_TABLE = struct.Struct(f"<{2 * SHARDS}q")
_TOTAL_AT = len(_MAGIC)
_TABLE_AT = _TOTAL_AT + _PAIR.size
_FILE_SIZE = _TABLE_AT + _TABLE.size


class Held(NamedTuple):
    """The content of a shard, or of all of them: bytes on disk, and values."""

    bytes: int
    entries: int


class Usage:
    """The counters. `with usage:` holds the lock; safe to use from any thread and process.

    Raises OSError where the file cannot be made, read or written, and after `close`.
    """

    def __init__(self, path: Path) -> None:
        self._thread_lock = threading.Lock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.is_new = False
        """True if the file is missing or implausible, so that everything must be counted."""
        try:
            with self:
                if not self._is_sound():
                    self.is_new = True
                    os.ftruncate(self._fd, 0)
                    self._write(0, _MAGIC + bytes(_FILE_SIZE - len(_MAGIC)))
        except OSError:
            self.close()
            raise

    def __enter__(self) -> Self:
        self._thread_lock.acquire()
        try:
            if self._fd < 0:
                raise OSError(errno.EBADF, "the cache is closed")
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except BaseException:
            self._thread_lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._thread_lock.release()

    def total(self) -> Held:
        """Return what all shards hold; call it with the lock held."""
        return self._read(_TOTAL_AT)

    def add(self, shard: int, size: int, entries: int) -> None:
        """Count bytes and entries, which may be negative; call it with the lock held."""
        for at in (_TOTAL_AT, _TABLE_AT + shard * _PAIR.size):
            held = self._read(at)
            self._write(at, _PAIR.pack(max(0, held.bytes + size), max(0, held.entries + entries)))

    def set_shard(self, shard: int, held: Held) -> None:
        """Set the counters of a listed shard; hold the lock since before the listing."""
        self._write(_TABLE_AT + shard * _PAIR.size, _PAIR.pack(*held))
        table = _TABLE.unpack(os.pread(self._fd, _TABLE.size, _TABLE_AT))
        self._write(_TOTAL_AT, _PAIR.pack(sum(table[0::2]), sum(table[1::2])))

    def close(self) -> None:
        """Close the file; do nothing when called again."""
        with self._thread_lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    def _is_sound(self) -> bool:
        data = os.pread(self._fd, _FILE_SIZE + 1, 0)
        if len(data) != _FILE_SIZE or not data.startswith(_MAGIC):
            return False
        total = _PAIR.unpack_from(data, _TOTAL_AT)
        table = _TABLE.unpack_from(data, _TABLE_AT)
        return min(table) >= 0 and total == (sum(table[0::2]), sum(table[1::2]))

    def _read(self, at: int) -> Held:
        data = os.pread(self._fd, _PAIR.size, at)
        if len(data) != _PAIR.size:
            raise OSError(errno.EIO, "the counters of the cache were truncated")
        return Held(*_PAIR.unpack(data))

    def _write(self, at: int, data: bytes) -> None:
        if os.pwrite(self._fd, data, at) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
