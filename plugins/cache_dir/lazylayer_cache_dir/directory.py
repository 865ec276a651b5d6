"""The cache over a directory.

    DIRECTORY/v1/usage                     the counters (usage.py)
                /00 … ff/PURPOSE-KEY       one file for each value (valuefile.py)
                /new/PID-NUMBER            files that are being written (lazylayer_newfiles)
                /limits/PID-NUMBER         the limits of the caches that are open (limits.py)

A value is written to a file of its own, which gets its name when it is whole. Any number of processes
may do all this at the same time. What goes wrong with files is a miss, or a value not kept; it is
logged once for each kind of failure.

Locks: `DirectoryCache._preparing`, and those of `usage.py` and `eviction.py`; none is held while a
value is read or written.
"""

# ruff: noqa: PTH102, PTH104, PTH108, PTH116
# A Path for each call would cost as much as the call itself.
from __future__ import annotations

import errno
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from loguru import logger

from lazylayer.api.cache import Cache, CachedValue, CacheEntry, CachePurpose, CacheStatistics, ValueInMemory
from lazylayer_cache_dir.eviction import Evictor, room_taken
from lazylayer_cache_dir.limits import SharedLimit
from lazylayer_cache_dir.usage import SHARDS, Usage
from lazylayer_cache_dir.valuefile import HEADER_SIZE, DamagedFileError, FileValue, hold, pack_header, read_value, touch
from lazylayer_newfiles import NewFiles

__all__ = ["DirectoryCache", "default_limit"]

SMALL = 32 * 1024
"""Bytes. Values up to this size are read at once when they are opened, and need no descriptor."""
CHECKED_FILES = 65_536
"""Number of files remembered as checked; 100 bytes of memory each."""
LARGEST_DEFAULT_LIMIT = 50 * 1024**3

_is_key = re.compile(r"[a-z0-9:._-]{1,128}").fullmatch


def default_limit(directory: Path) -> int:
    """Return a tenth of the file system that `directory` is on, or will be on. Raises OSError."""
    while not directory.exists():
        directory = directory.parent
    status = os.statvfs(directory)
    return max(min(status.f_blocks * status.f_frsize // 10, LARGEST_DEFAULT_LIMIT), 1)


class DirectoryCache(Cache):
    """Values in files. Safe to use from any thread, and by any number of processes at once.

    The directory is made, for its owner only. Raises OSError if it cannot be used.

    :param directory: an absolute path.
    :param max_bytes: bytes on disk that all values in `directory` may take up, also those of other
        purposes, and values that are open, unless another process that uses it has a larger limit; files
        that are being written are not counted.
    :param purpose: values are kept apart by it.
    """

    def __init__(self, directory: Path, *, max_bytes: int, purpose: CachePurpose = "chunks") -> None:
        self._root = f"{directory}/v1"
        self._max_bytes = max_bytes
        self._limit: SharedLimit | None = None
        self._prefix = f"{purpose}-"
        self._checked: set[int] = set()
        self._told: set[int | None] = set()
        self._new = NewFiles(f"{self._root}/new")
        self._usage: Usage | None = None
        self._evictor: Evictor | None = None
        self._closed = False
        self._preparing = threading.Lock()
        try:
            self._prepare()
        except OSError as error:
            if not _is_full(error):
                raise
            self._tell(error)

    def get(self, key: str) -> bytes | None:
        """Return the value under `key`, checked, or None. Raises ValueError for an invalid key."""
        shard, name = self._place(key)
        try:
            fd = os.open(self._path(shard, name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self._missing(error)
            return None
        try:
            data = read_value(fd, name, os.fstat(fd).st_size)
            touch(fd)
            return data
        except DamagedFileError as error:
            self._discard(key, error)
            return None
        except OSError as error:
            self._missing(error)
            return None
        finally:
            os.close(fd)

    def open(self, key: str) -> CachedValue | None:
        """Open the value under `key`, checked unless this instance wrote or checked its file before."""
        shard, name = self._place(key)
        fd = -1
        try:
            fd = os.open(self._path(shard, name), os.O_RDONLY | os.O_CLOEXEC)
            status = os.fstat(fd)
            identity = hash((name, status.st_ino, status.st_mtime_ns, status.st_size))
            small = status.st_size <= HEADER_SIZE + SMALL
            if not small and not hold(fd):
                return None  # it is being evicted
            if small or identity not in self._checked:
                data = read_value(fd, name, status.st_size)
                self._remember(identity)
            touch(fd)
            if small:
                return ValueInMemory(data)
            value = FileValue(fd, status.st_size - HEADER_SIZE, status.st_mtime_ns)
            fd = -1
            return value
        except DamagedFileError as error:
            self._discard(key, error)
            return None
        except OSError as error:
            self._missing(error)
            return None
        finally:
            if fd >= 0:
                os.close(fd)

    def has(self, key: str) -> bool:
        """Return True if there is a file for `key`. It does not count as a use."""
        return os.access(self._path(*self._place(key)), os.F_OK)

    def put(self, key: str, data: bytes) -> None:
        """Keep `data`, after making room for it, unless it is too large or a disk is full."""
        shard, name = self._place(key)
        taken = room_taken(HEADER_SIZE + len(data))
        if self._closed:
            return
        try:
            self._prepare()
            if not self._allows(taken):
                return
            if self._size_on_disk(shard, name) != HEADER_SIZE + len(data):
                self._keep(shard, name, data, taken)
        except OSError as error:
            if self._closed:
                return
            self._tell(error)
            if _is_full(error):
                self._yield_room()

    def remove(self, key: str) -> None:
        """Forget the value under `key`. Open values stay readable."""
        shard, name = self._place(key)
        if self._usage is None:
            return
        try:
            with self._usage as usage:
                size = self._size_on_disk(shard, name)
                if size >= 0:
                    os.unlink(self._path(shard, name))
                    usage.add(shard, -room_taken(size), -1)
        except OSError as error:
            self._missing(error)

    def statistics(self) -> CacheStatistics | None:
        """Return how full the directory is, with all purposes, and as all processes left it."""
        if self._usage is None:
            return None
        try:
            with self._usage as usage:
                held = usage.total()
        except OSError as error:
            self._missing(error)
            return None
        limit = self._limit.value() if self._limit is not None else self._max_bytes
        return CacheStatistics(held.entries, held.bytes, limit)

    def entries(self) -> Iterator[CacheEntry]:
        """Yield the values of this purpose, as they lie on disk."""
        for shard in range(SHARDS):
            with suppress(FileNotFoundError), os.scandir(f"{self._root}/{shard:02x}") as files:
                for file in files:
                    if file.name.startswith(self._prefix):
                        with suppress(FileNotFoundError):
                            status = file.stat(follow_symlinks=False)
                            key = file.name.removeprefix(self._prefix)
                            yield CacheEntry(key, room_taken(status.st_size), status.st_atime_ns / 1e9)

    def close(self) -> None:
        """Close the counters. Open values stay open, and values on disk stay there."""
        self._closed = True
        if self._usage is not None:
            self._usage.close()
        if self._limit is not None:
            self._limit.close()

    # --- writing ---------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Make the directory and open the counters, unless that was done before."""
        if self._usage is not None:
            return
        with self._preparing:
            if self._usage is not None:
                return
            _make_private_directory(Path(self._root))
            self._new.sweep()
            usage = Usage(Path(self._root, "usage"))
            self._limit = SharedLimit(Path(self._root, "limits"), self._max_bytes)
            self._evictor = Evictor(self._root, usage, self._limit, self._new)
            self._usage = usage
            if usage.is_new:
                self._evictor.count()

    def _keep(self, shard: int, name: str, data: bytes, taken: int) -> None:
        with self._new.create() as (fd, new):
            identity = self._write(fd, new, name, data)
            if self._publish(new, shard, name, taken):
                self._remember(identity)

    @staticmethod
    def _write(fd: int, new: str, name: str, data: bytes) -> int:
        """Write a value to a file; return the identity by which `open` recognizes the file."""
        if os.writev(fd, (pack_header(name, data), data)) != HEADER_SIZE + len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), new)
        touch(fd)  # the kernel's own times are too coarse to order by
        status = os.fstat(fd)
        return hash((name, status.st_ino, status.st_mtime_ns, status.st_size))

    def _publish(self, new: str, shard: int, name: str, taken: int) -> bool:
        """Give a whole file its name; return False without room, or if another was first."""
        assert self._usage is not None
        assert self._evictor is not None
        while True:
            with self._usage as usage:
                there = self._size_on_disk(shard, name)
                if there == os.stat(new).st_size:
                    return False
                if there >= 0:  # a torn one, which cannot be replaced without being discounted
                    os.unlink(self._path(shard, name))
                    usage.add(shard, -room_taken(there), -1)
                if self._allows(usage.total().bytes + taken):
                    self._make_shard(shard)
                    usage.add(shard, taken, 1)
                    os.rename(new, self._path(shard, name))
                    return True
            if not self._evictor.make_room(taken):
                return False

    def _allows(self, size: int) -> bool:
        return self._limit is not None and self._limit.allows(size)

    def _make_shard(self, shard: int) -> None:
        with suppress(FileExistsError):
            os.mkdir(f"{self._root}/{shard:02x}", 0o700)

    def _yield_room(self) -> None:
        """Free a part of a full disk, so that new values find room again."""
        if self._evictor is None:
            return
        try:
            self._evictor.give_back_a_tenth()
        except OSError as error:
            self._missing(error)

    # --- files -----------------------------------------------------------------------------------

    def _place(self, key: str) -> tuple[int, str]:
        if not _is_key(key):
            raise ValueError(f"{key!r} is not the key of a value")
        name = self._prefix + key
        return crc32(name.encode()) % SHARDS, name

    def _path(self, shard: int, name: str) -> str:
        return f"{self._root}/{shard:02x}/{name}"

    def _size_on_disk(self, shard: int, name: str) -> int:
        """Bytes in the file of a value, or -1 if there is none."""
        try:
            return os.stat(self._path(shard, name)).st_size
        except FileNotFoundError:
            return -1

    def _remember(self, identity: int) -> None:
        if len(self._checked) >= CHECKED_FILES:
            self._checked.clear()
        self._checked.add(identity)

    # --- failures --------------------------------------------------------------------------------

    def _discard(self, key: str, error: DamagedFileError) -> None:
        logger.debug("cache {root}: the file of {key} is damaged ({error})", root=self._root, key=key, error=error)
        if None not in self._told:
            self._told.add(None)
            logger.warning("cache {root}: there are damaged files; they are fetched again", root=self._root)
        self.remove(key)

    def _missing(self, error: OSError) -> None:
        if error.errno != errno.ENOENT and not self._closed:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        """Log a failure, once for each reason."""
        if error.errno not in self._told:
            self._told.add(error.errno)
            logger.warning("cache {root}: {error}; reads go on without it", root=self._root, error=error)


def _is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _make_private_directory(path: Path) -> None:
    """Make a directory for its owner only, and its missing parents. Raises OSError.

    One that is there already must be so: what others can write to cannot be believed.
    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(0o700, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    if status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "it belongs to another user", str(path))
    if status.st_mode & 0o077:
        raise PermissionError(errno.EPERM, "others may enter it; chmod it to 700", str(path))
