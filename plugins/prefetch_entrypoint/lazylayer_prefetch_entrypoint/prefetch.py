"""Prefetch an image: wave after wave, the files that the last wave showed to be needed."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Self

from loguru import logger

from lazylayer.api.opened import OpenedFile, OpenedImage
from lazylayer_prefetch_entrypoint.budget import Budget, MeteredFiles, OverBudgetError
from lazylayer_prefetch_entrypoint.command import Command, Started, environment_of
from lazylayer_prefetch_entrypoint.elf import MAX_DIRECTORIES, Needs, read_constants, read_needs
from lazylayer_prefetch_entrypoint.extensions import is_extension, names_in_extension
from lazylayer_prefetch_entrypoint.linking import C_LIBRARY, LOADER_CACHE, READ_BY_C_LIBRARY, Linker, with_origin
from lazylayer_prefetch_entrypoint.modules import Modules, is_module, modules_of, version_of
from lazylayer_prefetch_entrypoint.python import find_modules, is_interpreter, read_at_start

__all__ = ["Prefetch"]

_MAX_WAVES = 16
"""Libraries need libraries, and modules modules: deeper chains than this are not followed."""
_MAX_FILES = 10_000
"""For one image."""
_EXECUTABLE = 0o111
_MAX_CONSTANTS = 2 * 1024 * 1024
"""Bytes of one extension module."""


class _Wanted(NamedTuple):
    """A file to fetch, the directory that `$ORIGIN` is for it, and the DT_RPATH of the files that load it.

    A Python module or script has the `modules` of its interpreter, and a program the `arguments` behind it.
    """

    file: OpenedFile
    origin: bytes
    rpath: tuple[bytes, ...] = ()
    modules: Modules | None = None
    arguments: tuple[bytes, ...] = ()

    @classmethod
    def plain(cls, file: OpenedFile, modules: Modules | None = None) -> Self:
        return cls(file, _directory_of(file.path), modules=modules)


class Prefetch:
    """The prefetch of one image. The lock guards what was taken and how much is left.

    :param budget: what looking into the image's files may cost, followed ones included.
    """

    def __init__(self, image: OpenedImage, max_bytes: int, budget: Budget | None = None) -> None:
        config = image.resolved.config.config
        self._image = image
        self._left = max_bytes
        self._command = Command(config)
        self._environment = environment_of(config)
        self._budget = budget or Budget()
        self._files = MeteredFiles(image, self._budget)
        self._linker = Linker(self._files, self._environment.get(b"LD_LIBRARY_PATH", b""), self._budget)
        self._modules: dict[bytes, Modules] = {}
        self._version = b""
        """Of the Python that was seen last: there is seldom more than one."""
        self._seen: set[tuple[int, int]] = set()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Fetch wave after wave until nothing more is needed."""
        wanted = self._affordable(
            each for started in self._command.files(self._files) for each in self._started(started)
        )
        if not wanted:
            return
        loader_cache = self._image.find(LOADER_CACHE)
        if loader_cache is not None:
            wanted.append(_Wanted.plain(loader_cache))
        self._fetch(wanted)
        reference, count = str(self._image.resolved.reference), len(self._seen)
        logger.debug("{reference}: {count} files of its program were fetched ahead", reference=reference, count=count)

    def follow(self, file: OpenedFile) -> None:
        """Fetch the needs of an unforeseen program or module that is being read."""
        if self._take(file):
            wanted = self._affordable(self._needed_by(_Wanted.plain(file)))
            if is_interpreter(file.path):
                wanted.extend(self._affordable(self._started(Started(file, file.path))))
            self._fetch(wanted)

    def _fetch(self, wave: Iterable[_Wanted], waves: int = _MAX_WAVES) -> None:
        """Fetch files, the files that these need, and so on.

        Modules are small, and lead far: they do not wait for the libraries of their wave.
        """
        taken = [each for each in wave if self._take(each.file)] if waves else []
        lanes = [[each for each in taken if is_module(each.file.path) is kind] for kind in (True, False)]
        calls = [functools.partial(self._fetch_and_follow, lane, waves) for lane in lanes if lane]
        _run_both(calls)

    def _fetch_and_follow(self, files: list[_Wanted], waves: int) -> None:
        self._image.fetch(each.file for each in files)
        self._fetch(self._affordable(needed for each in files for needed in self._needed_by(each)), waves - 1)

    def _affordable(self, wanted: Iterator[_Wanted]) -> list[_Wanted]:
        """Return what is wanted, up to where the budget for looking into files ends."""
        found: list[_Wanted] = []
        try:
            with self._budget.looking():
                for each in wanted:
                    found.append(each)
        except OverBudgetError as error:
            reference = str(self._image.resolved.reference)
            logger.debug("{reference}: no more files are looked into: {error}", reference=reference, error=error)
        return found

    def _take(self, file: OpenedFile) -> bool:
        """Take a file into account, and return True if it is to be fetched: it is new, and there is room for it."""
        key = id(file.layer), file.entry.ino
        with self._lock:
            if key in self._seen or not file.entry.is_file:
                return False
            if file.entry.size > self._left or len(self._seen) >= _MAX_FILES:
                return False
            self._seen.add(key)
            self._left -= file.entry.size
            return True

    def _started(self, started: Started, script: OpenedFile | None = None) -> Iterator[_Wanted]:
        """Yield a program, and for a Python the files of what it is told to run; also the imports of `script`."""
        yield _Wanted.plain(started.file)._replace(arguments=started.arguments)
        if is_interpreter(started.file.path):
            modules = find_modules(self._files, started, self._command, self._environment, self._budget)
            for file in read_at_start(self._files, modules, started, self._command, self._budget):
                yield _Wanted.plain(file, modules)
            for file in modules.needed_by(script) if script is not None else ():
                yield _Wanted.plain(file, modules)

    def _needed_by(self, wanted: _Wanted) -> Iterator[_Wanted]:
        file = wanted.file
        self._version = version_of(file.path) or self._version
        needs = read_needs(file.read, self._budget) if not is_module(file.path) else None
        if needs is not None:
            yield from self._linked(wanted, needs)
            if is_extension(file.path):
                yield from self._imported_by_extension(wanted)
            return
        programs: list[Started] = []
        if file.entry.mode & _EXECUTABLE:
            programs.extend(self._command.interpreters(self._files, file, wanted.arguments))
        for each in programs:
            yield from self._started(each, file)
        if (wanted.modules is not None or is_module(file.path)) and not programs:
            modules = wanted.modules or self._modules_of(self._version)
            for needed in modules.needed_by(file):
                yield _Wanted.plain(needed, modules)

    def _imported_by_extension(self, wanted: _Wanted) -> Iterator[_Wanted]:
        modules = wanted.modules or self._modules_of(self._version)
        constants = read_constants(wanted.file.read, _MAX_CONSTANTS, self._budget)
        for needed in modules.named(names_in_extension(constants, self._budget), wanted.origin):
            yield _Wanted.plain(needed, modules)

    def _modules_of(self, version: bytes) -> Modules:
        known = self._modules.get(version)
        if known is None:
            known = self._modules[version] = modules_of(self._files, version, self._budget)
        return known

    def _linked(self, wanted: _Wanted, needs: Needs) -> Iterator[_Wanted]:
        loader = self._files.find(needs.loader) if needs.loader else None
        if loader is not None:
            self._linker.learn_loader(loader.path)
            yield _Wanted.plain(loader)
        rpath = (*with_origin(needs.rpath, wanted.origin), *wanted.rpath)[:MAX_DIRECTORIES]
        runpath = with_origin(needs.runpath, wanted.origin)
        for library in needs.libraries:
            found = self._linker.find(library, () if runpath else rpath, runpath)
            if found is not None:
                path, file = found
                yield _Wanted(file, _directory_of(path), rpath)
        for each in READ_BY_C_LIBRARY if C_LIBRARY in needs.libraries else ():
            file_there = self._files.find(each)
            if file_there is not None:
                yield _Wanted.plain(file_there)


def _directory_of(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def _run_both(calls: Sequence[Callable[[], None]]) -> None:
    """Run calls, the last one in this thread and the others in daemon threads; raise the first error when all ended."""
    errors: list[Exception | None] = [None] * len(calls)

    def run(number: int) -> None:
        try:
            calls[number]()
        except Exception as error:  # noqa: BLE001 - raised below
            errors[number] = error

    threads = [
        threading.Thread(target=run, args=(number,), name="lazylayer-entrypoint", daemon=True)
        for number in range(len(calls) - 1)
    ]
    for thread in threads:
        thread.start()
    if calls:
        run(len(calls) - 1)
    for thread in threads:
        thread.join()
    for error in errors:
        if error is not None:
            raise error
