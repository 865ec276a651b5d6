"""Where the dynamic loader finds a library, as ld.so(8) says; for glibc and musl.

glibc looks into the DT_RPATH of the file and of those that it was loaded for, then into the directories
of LD_LIBRARY_PATH, then of the file's DT_RUNPATH, then into /etc/ld.so.cache, then into a few directories
that every system has. musl has no cache, and nearly the same order. Which machine a library is for is
not looked at. Source of the cache's format: glibc, sysdeps/generic/dl-cache.h (`cache_file_new`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lazylayer.api.opened import OpenedFile, OpenedImage

__all__ = ["C_LIBRARY", "LOADER_CACHE", "READ_BY_C_LIBRARY", "Linker", "read_loader_cache", "with_origin"]

LOADER_CACHE = b"/etc/ld.so.cache"
C_LIBRARY = b"libc.so.6"
"""The name of glibc."""
READ_BY_C_LIBRARY = (b"/usr/lib/locale/C.utf8/LC_CTYPE", b"/etc/localtime", b"/etc/nsswitch.conf", b"/etc/passwd")
"""Small files that glibc reads for most programs: the locale, the time zone, who the user is."""

_MAGIC = b"glibc-ld.so.cache1.1"
_OLD_MAGIC = b"ld.so-1.7.0"
_OLD_ENTRY = 12
_HEADER = struct.Struct("=20sIIB3xI12x")
_ENTRY = struct.Struct("=iIIIQ")
_MAX_CACHE = 4 * 1024 * 1024
_MAX_LOOKUPS = 100_000
"""How many places are looked at for one image: no image is worth more than a second of work."""
_MAX_PATH = 4096
_MAX_SHARED = 4
"""How many times the size of a cache all its strings may have together: some end as others do."""
_DIRECTORIES = (b"/lib", b"/usr/lib", b"/lib64", b"/usr/lib64", b"/usr/local/lib")


class Linker:
    """Finds libraries in an image. Safe to use from any thread: at worst the cache is read twice.

    :param library_path: LD_LIBRARY_PATH of the image's environment.
    """

    def __init__(self, image: OpenedImage, library_path: bytes) -> None:
        self._image = image
        self._first = [each for each in library_path.split(b":") if each]
        self._known: dict[bytes, bytes] | None = None
        self._lookups = _MAX_LOOKUPS
        self._system: tuple[bytes, ...] = _DIRECTORIES

    def learn_loader(self, path: bytes) -> None:
        """Looks where this loader lies, too: Debian's are in the directory of their libraries, which they know."""
        directory = path.rpartition(b"/")[0]
        self._system = tuple(dict.fromkeys((directory, b"/usr" + directory, *_DIRECTORIES)))

    def find(self, library: bytes, rpath: Sequence[bytes], runpath: Sequence[bytes]) -> tuple[bytes, OpenedFile] | None:
        """The library that a file needs by this name, with the path where the loader finds it, or None.

        :param rpath: directories to look into first, without `$ORIGIN`.
        :param runpath: those to look into after LD_LIBRARY_PATH.
        """
        for path in self._candidates(library, rpath, runpath):
            self._lookups -= 1
            if self._lookups < 0:
                return None
            found = self._image.find(path) if b"\0" not in path else None
            if found is not None and found.entry.is_file:
                return path, found
        return None

    def _candidates(self, library: bytes, rpath: Sequence[bytes], runpath: Sequence[bytes]) -> Iterator[bytes]:
        if b"/" in library:
            yield library
            return
        for directory in (*rpath, *self._first, *runpath):
            yield directory + b"/" + library
        if library in self._cache:
            yield self._cache[library]
        for directory in self._system:
            yield directory + b"/" + library

    @property
    def _cache(self) -> dict[bytes, bytes]:
        if self._known is None:
            found = self._image.find(LOADER_CACHE)
            readable = found is not None and found.entry.is_file and found.entry.size <= _MAX_CACHE
            self._known = read_loader_cache(found.read(0, found.entry.size)) if found and readable else {}
        return self._known


def with_origin(directories: Sequence[bytes], origin: bytes) -> tuple[bytes, ...]:
    """Directories that a file names, as paths: `$ORIGIN` in them is `origin`, the directory that the file is in."""
    named = [each.replace(b"${ORIGIN}", origin).replace(b"$ORIGIN", origin) for each in directories]
    return tuple(each for each in named if each)


def read_loader_cache(data: bytes) -> dict[bytes, bytes]:
    """The path of each library in a loader's cache, the first of each name; nothing for a cache that is broken."""
    start = 0
    if data.startswith(_OLD_MAGIC) and len(data) >= 16:
        (old_entries,) = struct.unpack_from("=I", data, 12)
        start = -(-(16 + _OLD_ENTRY * old_entries) // 8) * 8
    if len(data) < start + _HEADER.size:
        return {}
    magic, count, *_ = _HEADER.unpack_from(data, start)
    if magic != _MAGIC:
        return {}
    paths: dict[bytes, bytes] = {}
    total = 0
    end = min(start + _HEADER.size + count * _ENTRY.size, len(data) - _ENTRY.size + 1)
    for at in range(start + _HEADER.size, end, _ENTRY.size):
        _, name, path, _, _ = _ENTRY.unpack_from(data, at)
        key, value = _string(data, start + name), _string(data, start + path)
        total += len(key) + len(value)
        if total > _MAX_SHARED * len(data):
            return {}
        paths.setdefault(key, value)
    paths.pop(b"", None)
    return paths


def _string(data: bytes, offset: int) -> bytes:
    end = data.find(b"\0", offset, offset + _MAX_PATH)
    return data[offset:end] if end >= 0 else b""
