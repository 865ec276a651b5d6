"""The plugin: wave after wave, the files that the last wave showed to be needed."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Annotated

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
        """Fetches the image's program, unless the image says itself what to prefetch; watches for others."""
        if not self._options.max_bytes:
            return
        from lazylayer.image import ImageFile

        prefetch = _Prefetch(image, self._options.max_bytes)
        if not any(layer.tree.prefetch_landmark is not None for layer in image.layers):
            prefetch.run()

        def follow(layer: Layer, path: bytes, entry: Entry) -> None:
            prefetch.follow(path, ImageFile(layer, entry))

        for layer in image.layers:
            layer.watch_programs(functools.partial(follow, layer))


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

        wave = dict(self._command.files(self._image))
        if not wave:
            return
        loader_cache = self._image.find(LOADER_CACHE)
        if loader_cache is not None:
            wave[LOADER_CACHE] = loader_cache
        count = self._fetch(wave)
        reference = str(self._image.resolved.reference)
        logger.debug("{reference}: {count} files of its program were fetched ahead", reference=reference, count=count)

    def follow(self, path: bytes, file: ImageFile) -> None:
        """Fetches what a program needs that is being read, and was not foreseen."""
        if self._take(file):
            self._fetch(self._needed_by(path, file))

    def _fetch(self, wave: dict[bytes, ImageFile]) -> int:
        """Fetches files, what these need, and so on; returns how many."""
        count = 0
        for _ in range(_MAX_WAVES):
            wave = {path: file for path, file in wave.items() if self._take(file)}
            if not wave:
                break
            count += len(wave)
            self._image.fetch(wave.values())
            wave = {path: file for each in list(wave.items()) for path, file in self._needed_by(*each).items()}
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

    def _needed_by(self, path: bytes, file: ImageFile) -> dict[bytes, ImageFile]:
        from lazylayer_prefetch_entrypoint.elf import read_needs
        from lazylayer_prefetch_entrypoint.linking import C_LIBRARY, READ_BY_C_LIBRARY

        needs = read_needs(file.read)
        if needs is None:
            return dict(self._command.interpreters(self._image, file))
        needed = {}
        loader = self._image.find(needs.loader) if needs.loader else None
        if loader is not None:
            needed[needs.loader] = loader
        origin = path.rpartition(b"/")[0]
        for library in needs.libraries:
            found = self._linker.find(library, needs.directories, origin)
            if found is not None:
                needed[library] = found
        if C_LIBRARY in needed:
            extra = {each: self._image.find(each) for each in READ_BY_C_LIBRARY}
            needed |= {each: file for each, file in extra.items() if file is not None}
        return needed
