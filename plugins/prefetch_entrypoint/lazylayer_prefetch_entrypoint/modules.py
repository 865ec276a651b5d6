"""Find the files of modules in an image as Python does.

Source: the documentation of `sys.path` and `importlib`, PEP 3147 (`__pycache__`), PEP 420 (packages without
`__init__`), and Debian's Python policy (`dist-packages`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lazylayer_prefetch_entrypoint.bytecode import names_in_bytecode
from lazylayer_prefetch_entrypoint.imports import MAX_NAMES, names_in_source

if TYPE_CHECKING:
    from lazylayer.api.opened import OpenedFile
    from lazylayer_prefetch_entrypoint.budget import Budget, Files

__all__ = ["Modules", "is_module", "modules_of", "search_path", "version_of"]

_PACKAGE = b"__init__"
_CACHE = b"__pycache__"
_VERSION_IN_PATH = re.compile(rb"/python(3\.\d{1,3}+)(?:/|$)|\.cpython-(3)(\d{1,3}+)[.-]")
_PREFIXES = (b"/usr", b"/usr/local")
_MAX_MODULE = 1024 * 1024
"""Bytes. In larger files imports are not looked for."""
_MAX_LEVEL = 32
_MAX_DIRECTORIES = 64
"""Directories on the path of one Python."""
_BUILT_IN_SINCE = 11
_BUILT_IN = frozenset((b"abc", b"codecs", b"io", b"os", b"stat", b"site", b"genericpath", b"posixpath", b"runpy"))
"""Modules frozen into the interpreter since Python 3.11, for which it reads no file (Python/frozen.c)."""


def is_module(path: bytes) -> bool:
    """Return True if a file is a Python module, in source or compiled, by its name."""
    return path.endswith((b".pyc", b".py"))


def version_of(path: bytes) -> bytes:
    """Return the version of Python, as in `3.11`, that the path of an interpreter or module tells, or nothing."""
    found = _VERSION_IN_PATH.search(path)
    return (found[1] or found[2] + b"." + found[3]) if found is not None else b""


def search_path(version: bytes, prefixes: Sequence[bytes] = _PREFIXES) -> Iterator[bytes]:
    """Yield the directories that a Python of this version searches for modules; most images lack most of them."""
    for prefix in prefixes:
        library = prefix + b"/lib/python" + version
        yield from (library, library + b"/lib-dynload", library + b"/site-packages", library + b"/dist-packages")
    yield b"/usr/lib/python3/dist-packages"


class _Listing(NamedTuple):
    names: frozenset[bytes]
    heads: frozenset[bytes]
    """The names, and their parts in front of the first dot: what a module in this directory can be called."""
    extensions: dict[bytes, bytes]
    """The file of each extension module, by the name of the module."""


class Modules:
    """A search for the files of modules, which remembers what directories hold.

    Safe to use from any thread: at worst a directory is listed twice. Everything raises OverBudgetError.

    :param files: the image's files.
    :param version: of Python, as in `3.11`; if it is empty, only modules in source are found.
    :param path: directories to search, in this order.
    """

    def __init__(self, files: Files, version: bytes, path: Sequence[bytes], budget: Budget) -> None:
        self._files = files
        self._budget = budget
        self._tag = b"cpython-" + version.replace(b".", b"")
        self._built_in = _BUILT_IN if int(version[2:] or 0) >= _BUILT_IN_SINCE else frozenset()
        self._listings: dict[bytes, _Listing] = {}
        self._tops: dict[bytes, bytes] = {}
        directories = list(dict.fromkeys(path))[:_MAX_DIRECTORIES]
        self._path = [each for each in directories if self._listing(each).names]

    def needed_by(self, file: OpenedFile) -> Iterator[OpenedFile]:
        """Yield the files of the modules that this module or script imports when it is imported or run itself."""
        if file.entry.size > _MAX_MODULE:
            return
        directory = file.path.rpartition(b"/")[0]
        data = file.read(0, file.entry.size)
        if file.path.endswith(b".pyc"):
            yield from self.named(names_in_bytecode(data, self._budget), directory.removesuffix(b"/" + _CACHE))
        else:
            yield from self.named(names_in_source(data, self._budget), directory)

    def named(self, names: Sequence[bytes], directory: bytes) -> Iterator[OpenedFile]:
        """Yield the files of modules and of their packages.

        :param names: as import statements in a module in `directory` have them.
        """
        absolute = [*self._path, self._top(directory)]
        heads = [self._listing(each).heads for each in absolute]
        for name in names[:MAX_NAMES]:
            self._budget.spend(len(name) + len(heads))
            bare = name.lstrip(b".")
            level, path = len(name) - len(bare), bare.split(b".")
            if not level and not any(path[0] in each for each in heads):
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
        """Yield the `.pth` files, which an interpreter reads when it starts."""
        for directory in self._path:
            for name in self._listing(directory).names:
                if name.endswith(b".pth"):
                    yield from self._find(directory, name)

    def _first(self, name: bytes, places: Sequence[bytes]) -> tuple[list[OpenedFile], bytes] | None:
        """Return a module from the first place that has it; a directory without `__init__` only if no place has it."""
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
        """Return the files of a module in a directory, and its own directory if it is a package."""
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
        found = self._files.find(directory + b"/" + name)
        if found is not None and found.entry.is_file:
            yield found

    def _top(self, directory: bytes) -> bytes:
        """Return the directory that holds the outermost of the packages that `directory` is in."""
        inside = []
        top = directory
        while top not in self._tops and top.strip(b"/") and _PACKAGE + b".py" in self._listing(top).names:
            inside.append(top)
            top = top.rpartition(b"/")[0]
        found = self._tops.get(top, top)
        self._tops.update(dict.fromkeys([*inside, top], found))
        return found

    def _listing(self, directory: bytes) -> _Listing:
        known = self._listings.get(directory)
        if known is None:
            names = frozenset(self._files.names(directory))
            extensions = {
                name.partition(b".")[0]: name
                for name in names
                if name.endswith(b".so") and (b".cpython-" not in name or self._tag in name)
            }
            heads = names.union(name.partition(b".")[0] for name in names)
            known = self._listings[directory] = _Listing(names, heads, extensions)
        return known


def modules_of(files: Files, version: bytes, budget: Budget) -> Modules:
    """Return the modules that a Python of this version finds, if it is known, however it was started."""
    return Modules(files, version, list(search_path(version)) if version else [], budget)
