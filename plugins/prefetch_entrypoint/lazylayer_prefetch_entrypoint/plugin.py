"""The plugin: wave after wave, the files that the last wave showed to be needed."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, NamedTuple, Self

import msgspec
from loguru import logger

from lazylayer import hookimpl
from lazylayer.settings import Settings

if TYPE_CHECKING:
    from lazylayer.image import Image, ImageFile
    from lazylayer.layer import Layer
    from lazylayer.tree import Entry

__all__ = ["NAME", "Options", "PrefetchEntrypoint"]

NAME = "prefetch_entrypoint"

_MAX_WAVES = 16
"""Libraries need libraries: deeper chains than this are not followed."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.prefetch_entrypoint]`."""

    max_bytes: Annotated[int, msgspec.Meta(ge=0)] = 64 * 1024 * 1024
    """Bytes of files, inflated, that are fetched for one image at most; larger ones are left out."""


class PrefetchEntrypoint:
    """The plugin; it keeps its options."""

    def __init__(self) -> None:
        self._options = Options()

    @hookimpl
    def lazylayer_configure(self, settings: Settings) -> None:
        """Takes `[plugin.prefetch_entrypoint]`."""
        self._options = settings.plugin_options(NAME, Options)

    @hookimpl
    def lazylayer_warm_up(self) -> None:
        """Imports what the first image will need."""
        import lazylayer_prefetch_entrypoint.command
        import lazylayer_prefetch_entrypoint.elf
        import lazylayer_prefetch_entrypoint.linking  # noqa: F401

    @hookimpl
    def lazylayer_prefetch_image(self, image: Image) -> None:
        """Watches for programs; fetches that of the image, unless the image says itself what to prefetch."""
        if not self._options.max_bytes:
            return
        from lazylayer.image import ImageFile

        prefetch = _Prefetch(image, self._options.max_bytes)

        def follow(layer: Layer, path: bytes, entry: Entry) -> None:
            prefetch.follow(ImageFile(layer, entry, path))

        for layer in image.layers:
            layer.watch_programs(NAME, functools.partial(follow, layer))
        if not any(layer.tree.prefetch_landmark is not None for layer in image.layers):
            prefetch.run()


class _Wanted(NamedTuple):
    """A file to fetch, the directory that `$ORIGIN` is for it, and the DT_RPATH of those that it is loaded for."""

    file: ImageFile
    origin: bytes
    rpath: tuple[bytes, ...] = ()

    @classmethod
    def program(cls, file: ImageFile) -> Self:
        return cls(file, _directory_of(file.path))


class _Prefetch:
    """The prefetch of one image. The lock guards what was taken and how much is left."""

    def __init__(self, image: Image, max_bytes: int) -> None:
        from lazylayer_prefetch_entrypoint.command import Command, environment_of
        from lazylayer_prefetch_entrypoint.linking import Linker

        config = image.resolved.config.config
        self._image = image
        self._left = max_bytes
        self._command = Command(config)
        self._linker = Linker(image, environment_of(config).get(b"LD_LIBRARY_PATH", b""))
        self._seen: set[tuple[int, int]] = set()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Fetches wave after wave until nothing more is needed."""
        from lazylayer_prefetch_entrypoint.linking import LOADER_CACHE

        files = list(self._command.files(self._image))
        if not files:
            return
        loader_cache = self._image.find(LOADER_CACHE)
        if loader_cache is not None:
            files.append(loader_cache)
        count = self._fetch(map(_Wanted.program, files))
        reference = str(self._image.resolved.reference)
        logger.debug("{reference}: {count} files of its program were fetched ahead", reference=reference, count=count)

    def follow(self, file: ImageFile) -> None:
        """Fetches what a program needs that is being read, and was not foreseen."""
        if self._take(file):
            self._fetch(self._needed_by(_Wanted.program(file)))

    def _fetch(self, wave: Iterable[_Wanted]) -> int:
        """Fetches files, what these need, and so on; returns how many."""
        count = 0
        for _ in range(_MAX_WAVES):
            taken = [each for each in wave if self._take(each.file)]
            if not taken:
                break
            count += len(taken)
            self._image.fetch(each.file for each in taken)
            wave = [needed for each in taken for needed in self._needed_by(each)]
        return count

    def _take(self, file: ImageFile) -> bool:
        """Whether to fetch a file: it is new, and there is room for it."""
        key = id(file.layer), file.entry.ino
        with self._lock:
            if key in self._seen or not file.entry.is_file or file.entry.size > self._left:
                return False
            self._seen.add(key)
            self._left -= file.entry.size
            return True

    def _needed_by(self, wanted: _Wanted) -> Iterator[_Wanted]:
        from lazylayer_prefetch_entrypoint.elf import read_needs
        from lazylayer_prefetch_entrypoint.linking import C_LIBRARY, READ_BY_C_LIBRARY, with_origin

        needs = read_needs(wanted.file.read)
        if needs is None:
            yield from map(_Wanted.program, self._command.interpreters(self._image, wanted.file))
            return
        loader = self._image.find(needs.loader) if needs.loader else None
        if loader is not None:
            self._linker.learn_loader(loader.path)
            yield _Wanted.program(loader)
        rpath = (*with_origin(needs.rpath, wanted.origin), *wanted.rpath)
        runpath = with_origin(needs.runpath, wanted.origin)
        for library in needs.libraries:
            found = self._linker.find(library, () if runpath else rpath, runpath)
            if found is not None:
                path, file = found
                yield _Wanted(file, _directory_of(path), rpath)
        for each in READ_BY_C_LIBRARY if C_LIBRARY in needs.libraries else ():
            file_there = self._image.find(each)
            if file_there is not None:
                yield _Wanted.program(file_there)


def _directory_of(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]
