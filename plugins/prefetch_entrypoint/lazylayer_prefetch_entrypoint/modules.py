"""Where Python finds modules in an image.

Source: the documentation of `sys.path` and `importlib`, PEP 3147 (`__pycache__`), PEP 420 (packages without
`__init__`), and Debian's Python policy (`dist-packages`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lazylayer_prefetch_entrypoint.bytecode import names_in_bytecode
from lazylayer_prefetch_entrypoint.imports import names_in_source

if TYPE_CHECKING:
    from lazylayer.api.opened import OpenedFile, OpenedImage

__all__ = ["Modules", "is_module", "modules_of", "search_path", "version_of"]

_PACKAGE = b"__init__"
_CACHE = b"__pycache__"
_VERSION_IN_PATH = re.compile(rb"/python(3\.\d+)(?:/|$)|\.cpython-(3)(\d+)[.-]")
_PREFIXES = (b"/usr", b"/usr/local")
_MAX_MODULE = 1024 * 1024
"""Bytes. In larger files imports are not looked for."""
_MAX_NAMES = 4000
_MAX_LEVEL = 32
_BUILT_IN_SINCE = 11
_BUILT_IN = frozenset((b"abc", b"codecs", b"io", b"os", b"stat", b"site", b"genericpath", b"posixpath", b"runpy"))
"""Modules that an interpreter has in itself since Python 3.11, and reads no file for (Python/frozen.c)."""


def is_module(path: bytes) -> bool:
    """Whether a file is a Python module, in source or compiled, by its name."""
    return path.endswith((b".pyc", b".py"))


def version_of(path: bytes) -> bytes:
    """The version of Python, as in `3.11`, that an interpreter or module is of; empty if its path does not tell."""
    found = _VERSION_IN_PATH.search(path)
    return (found[1] or found[2] + b"." + found[3]) if found is not None else b""


def search_path(version: bytes, prefixes: Sequence[bytes] = _PREFIXES) -> Iterator[bytes]:
    """The directories in which a Python of this version looks for modules; most of them are in no image."""
    for prefix in prefixes:
        library = prefix + b"/lib/python" + version
        yield from (library, library + b"/lib-dynload", library + b"/site-packages", library + b"/dist-packages")
    yield b"/usr/lib/python3/dist-packages"


class _Listing(NamedTuple):
    names: frozenset[bytes]
    extensions: dict[bytes, bytes]
    """The file of each extension module, by the name of the module."""


class Modules:
    """Finds the files of modules; remembers what directories hold. Safe from any thread: at worst one is listed twice.

    :param version: of Python, as in `3.11`; where it is not known, only modules in source are found.
    :param path: directories to look into, the first first.
    """

    def __init__(self, image: OpenedImage, version: bytes, path: Sequence[bytes]) -> None:
        self._image = image
        self._tag = b"cpython-" + version.replace(b".", b"")
        self._built_in = _BUILT_IN if int(version[2:] or 0) >= _BUILT_IN_SINCE else frozenset()
        self._listings: dict[bytes, _Listing] = {}
        self._names: dict[tuple[bytes, ...], frozenset[bytes]] = {}
        self._path = [each for each in dict.fromkeys(path) if self._listing(each).names]

    def needed_by(self, file: OpenedFile) -> Iterator[OpenedFile]:
        """The files of the modules that this module, or script, imports when it is imported, or run, itself."""
        if file.entry.size > _MAX_MODULE:
            return
        directory = file.path.rpartition(b"/")[0]
        data = file.read(0, file.entry.size)
        if file.path.endswith(b".pyc"):
            yield from self.named(names_in_bytecode(data), directory.removesuffix(b"/" + _CACHE))
        else:
            yield from self.named(names_in_source(data), directory)

    def named(self, names: Sequence[bytes], directory: bytes) -> Iterator[OpenedFile]:
        """The files of modules, named as by import statements in a module in `directory`, and of their packages."""
        absolute = [*self._path, self._top(directory)]
        known = self._top_level(tuple(absolute))
        for name in names[:_MAX_NAMES]:
            bare = name.lstrip(b".")
            level, path = len(name) - len(bare), bare.split(b".")
            if not level and path[0] not in known:
                continue
            base = directory
            for _ in range(min(level - 1, _MAX_LEVEL)):
                base = base.rpartition(b"/")[0]
            found = self._first(path[0], [base] if level else absolute)
            for part in (*path[1:], b""):
                if found is None:
                    break
                files, package = found
                yield from files
                found = self._module(package, part) if package and part else None

    def path_files(self) -> Iterator[OpenedFile]:
        """The `.pth` files, which an interpreter reads when it starts."""
        for directory in self._path:
            for name in self._listing(directory).names:
                if name.endswith(b".pth"):
                    yield from self._find(directory, name)

    def _first(self, name: bytes, places: Sequence[bytes]) -> tuple[list[OpenedFile], bytes] | None:
        """A module from the first place that has it; a directory without `__init__` counts only if no place does."""
        if name in self._built_in:
            return None
        namespace = None
        for place in places:
            found = self._module(place, name)
            if found is not None and found[0]:
                return found
            namespace = namespace or found
        return namespace

    def _module(self, directory: bytes, name: bytes) -> tuple[list[OpenedFile], bytes] | None:
        """The files of a module in a directory, and its own directory if it is a package."""
        listing = self._listing(directory)
        if name in listing.names:
            package = directory + b"/" + name
            if self._listing(package).names:
                return self._compiled_or_source(package, _PACKAGE), package
        if name in listing.extensions:
            return list(self._find(directory, listing.extensions[name])), b""
        if name + b".py" in listing.names:
            return self._compiled_or_source(directory, name), b""
        return None

    def _compiled_or_source(self, directory: bytes, name: bytes) -> list[OpenedFile]:
        cache, compiled = directory + b"/" + _CACHE, b"%s.%s.pyc" % (name, self._tag)
        if compiled in self._listing(cache).names:
            return list(self._find(cache, compiled))
        return list(self._find(directory, name + b".py"))

    def _find(self, directory: bytes, name: bytes) -> Iterator[OpenedFile]:
        found = self._image.find(directory + b"/" + name)
        if found is not None and found.entry.is_file:
            yield found

    def _top_level(self, directories: tuple[bytes, ...]) -> frozenset[bytes]:
        """The names that lie in these directories, with and without what is behind a dot."""
        known = self._names.get(directories)
        if known is None:
            names = [name for directory in directories for name in self._listing(directory).names]
            known = self._names[directories] = frozenset([*names, *(name.partition(b".")[0] for name in names)])
        return known

    def _top(self, directory: bytes) -> bytes:
        """The directory that has the outermost of the packages that a directory is in."""
        while directory.strip(b"/") and _PACKAGE + b".py" in self._listing(directory).names:
            directory = directory.rpartition(b"/")[0]
        return directory

    def _listing(self, directory: bytes) -> _Listing:
        known = self._listings.get(directory)
        if known is None:
            names = frozenset(self._image.names(directory))
            extensions = {
                name.partition(b".")[0]: name
                for name in names
                if name.endswith(b".so") and (b".cpython-" not in name or self._tag in name)
            }
            known = self._listings[directory] = _Listing(names, extensions)
        return known


def modules_of(image: OpenedImage, version: bytes) -> Modules:
    """Where a Python of this version, if it is known, looks for modules when nothing is known of how it was started."""
    return Modules(image, version, list(search_path(version)) if version else [])
