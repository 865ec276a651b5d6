"""Where the dynamic loader finds a library, as ld.so(8) says; for glibc and musl.

glibc looks into directories that the file itself names, then those of LD_LIBRARY_PATH, then into
/etc/ld.so.cache, then into a few directories that every system has. Source of the cache's format:
glibc, sysdeps/generic/dl-cache.h (`cache_file_new`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lazylayer.image import Image, ImageFile

__all__ = ["C_LIBRARY", "LOADER_CACHE", "READ_BY_C_LIBRARY", "Linker", "read_loader_cache"]

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
_MAX_PATH = 4096
_DIRECTORIES = (b"/lib", b"/usr/lib", b"/lib64", b"/usr/lib64", b"/usr/local/lib")


class Linker:
    """Finds libraries in an image. Used by one thread.

    :param library_path: LD_LIBRARY_PATH of the image's environment.
    """

    def __init__(self, image: Image, library_path: bytes) -> None:
        self._image = image
        self._first = [each for each in library_path.split(b":") if each]
        self._known: dict[bytes, bytes] | None = None

    def find(self, library: bytes, directories: Sequence[bytes], origin: bytes) -> ImageFile | None:
        """The library that a file needs by this name, or None.

        :param directories: those that the file names; `$ORIGIN` in them is `origin`, the directory it is in.
        """
        for path in self._candidates(library, directories, origin):
            found = self._image.find(path)
            if found is not None and found.entry.is_file:
                return found
        return None

    def _candidates(self, library: bytes, directories: Sequence[bytes], origin: bytes) -> Iterator[bytes]:
        if b"/" in library:
            yield library
            return
        for directory in directories:
            place = directory.replace(b"${ORIGIN}", origin).replace(b"$ORIGIN", origin)
            yield place + b"/" + library
        for directory in self._first:
            yield directory + b"/" + library
        if library in self._cache:
            yield self._cache[library]
        for directory in _DIRECTORIES:
            yield directory + b"/" + library

    @property
    def _cache(self) -> dict[bytes, bytes]:
        if self._known is None:
            found = self._image.find(LOADER_CACHE)
            readable = found is not None and found.entry.is_file and found.entry.size <= _MAX_CACHE
            self._known = read_loader_cache(found.read(0, found.entry.size)) if found and readable else {}
        return self._known


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
    end = min(start + _HEADER.size + count * _ENTRY.size, len(data) - _ENTRY.size + 1)
    for at in range(start + _HEADER.size, end, _ENTRY.size):
        _, name, path, _, _ = _ENTRY.unpack_from(data, at)
        paths.setdefault(_string(data, start + name), _string(data, start + path))
    paths.pop(b"", None)
    return paths


def _string(data: bytes, offset: int) -> bytes:
    end = data.find(b"\0", offset, offset + _MAX_PATH)
    return data[offset:end] if end >= 0 else b""
