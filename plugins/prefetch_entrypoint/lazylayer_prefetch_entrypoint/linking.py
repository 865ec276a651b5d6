"""Find libraries as the dynamic loader does (ld.so(8)), for glibc and musl.

glibc looks into the DT_RPATH of the file and of those that it was loaded for, then into the directories
of LD_LIBRARY_PATH, then of the file's DT_RUNPATH, then into /etc/ld.so.cache, then into a few directories
that every system has. musl has no cache, and nearly the same order. The machine that a library is for is
not checked. Source of the cache's format: glibc, sysdeps/generic/dl-cache.h (`cache_file_new`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lazylayer_prefetch_entrypoint.elf import MAX_DIRECTORIES

if TYPE_CHECKING:
    from lazylayer.api.opened import OpenedFile
    from lazylayer_prefetch_entrypoint.budget import Budget, Files

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
_MAX_PATH = 4096
_MAX_SHARED = 4
"""Size of all strings of a cache together, in sizes of the cache: some end as others do, and share their bytes."""
_DIRECTORIES = (b"/lib", b"/usr/lib", b"/lib64", b"/usr/lib64", b"/usr/local/lib")


class Linker:
    """A search for libraries in an image. Safe to use from any thread: at worst the cache is read twice.

    :param files: the image's files.
    :param library_path: LD_LIBRARY_PATH of the image's environment.
    """

    def __init__(self, files: Files, library_path: bytes, budget: Budget) -> None:
        self._files = files
        self._budget = budget
        self._first = [each for each in library_path.split(b":", MAX_DIRECTORIES)[:MAX_DIRECTORIES] if each]
        self._known: dict[bytes, bytes] | None = None
        self._system: tuple[bytes, ...] = _DIRECTORIES

    def learn_loader(self, path: bytes) -> None:
        """Also search the directory of this loader: Debian's lie beside their libraries."""
        directory = path.rpartition(b"/")[0]
        self._system = tuple(dict.fromkeys((directory, b"/usr" + directory, *_DIRECTORIES)))

    def find(self, library: bytes, rpath: Sequence[bytes], runpath: Sequence[bytes]) -> tuple[bytes, OpenedFile] | None:
        """Return the library that a file needs by this name, with the path where the loader finds it, or None.

        :param rpath: directories to look into first, without `$ORIGIN`.
        :param runpath: directories to look into after LD_LIBRARY_PATH.

        Raises OverBudgetError.
        """
        for path in self._candidates(library, rpath, runpath):
            found = self._files.find(path) if b"\0" not in path and len(path) < _MAX_PATH else None
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
            found = self._files.find(LOADER_CACHE)
            readable = found is not None and found.entry.is_file and found.entry.size <= _MAX_CACHE
            data = found.read(0, found.entry.size) if found and readable else b""
            self._known = read_loader_cache(data, self._budget)
        return self._known


def with_origin(directories: Sequence[bytes], origin: bytes) -> tuple[bytes, ...]:
    """Return the directories that a file names, `$ORIGIN` replaced by `origin`, the directory of the file.

    Those that are longer than a path may be are left out.
    """
    named = [
        each.replace(b"${ORIGIN}", origin).replace(b"$ORIGIN", origin)
        for each in directories
        if each and each.count(b"ORIGIN") * len(origin) + len(each) < _MAX_PATH
    ]
    return tuple(each for each in named if each)


def read_loader_cache(data: bytes, budget: Budget) -> dict[bytes, bytes]:
    """Return the path of each library in a loader's cache, the first of each name; nothing for a broken cache.

    Raises OverBudgetError.
    """
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
        if key is None or value is None:
            return {}
        total += len(key) + len(value)
        budget.spend(_ENTRY.size + len(key) + len(value))
        if total > _MAX_SHARED * len(data):
            return {}
        paths.setdefault(key, value)
    paths.pop(b"", None)
    return paths


def _string(data: bytes, offset: int) -> bytes | None:
    """Return the text at `offset`, or None if it has no end."""
    end = data.find(b"\0", offset, offset + _MAX_PATH)
    return data[offset:end] if end >= 0 else None
