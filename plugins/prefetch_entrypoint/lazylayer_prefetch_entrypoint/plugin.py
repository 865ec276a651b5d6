"""The plugin: wave after wave, the files that the last wave showed to be needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from loguru import logger

from lazylayer import hookimpl
from lazylayer.settings import Settings

if TYPE_CHECKING:
    from lazylayer.image import Image, ImageFile

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
        """Fetches the image's program, unless the image says itself what to prefetch."""
        if self._options.max_bytes and not any(layer.tree.prefetch_landmark is not None for layer in image.layers):
            _Prefetch(image, self._options.max_bytes).run()


class _Prefetch:
    """The prefetch of one image."""

    def __init__(self, image: Image, max_bytes: int) -> None:
        from lazylayer_prefetch_entrypoint.command import Command, environment_of
        from lazylayer_prefetch_entrypoint.linking import Linker

        config = image.resolved.config.config
        self._image = image
        self._left = max_bytes
        self._command = Command(config)
        self._linker = Linker(image, environment_of(config).get(b"LD_LIBRARY_PATH", b""))
        self._seen: set[tuple[int, int]] = set()
        self._count = 0

    def run(self) -> None:
        """Fetches wave after wave until nothing more is needed."""
        from lazylayer_prefetch_entrypoint.linking import LOADER_CACHE

        wave = dict(self._command.files(self._image))
        if not wave:
            return
        loader_cache = self._image.find(LOADER_CACHE)
        if loader_cache is not None:
            wave[LOADER_CACHE] = loader_cache
        for _ in range(_MAX_WAVES):
            wave = {path: file for path, file in wave.items() if self._take(file)}
            if not wave:
                break
            self._image.fetch(wave.values())
            wave = {path: file for each in list(wave.items()) for path, file in self._needed_by(*each).items()}
        logger.debug(
            "{reference}: {count} files of its program were fetched ahead",
            reference=str(self._image.resolved.reference),
            count=self._count,
        )

    def _take(self, file: ImageFile) -> bool:
        """Whether to fetch a file: it is new, and there is room for it."""
        key = id(file.layer), file.entry.ino
        if key in self._seen or not file.entry.is_file or file.entry.size > self._left:
            return False
        self._seen.add(key)
        self._left -= file.entry.size
        self._count += 1
        return True

    def _needed_by(self, path: bytes, file: ImageFile) -> dict[bytes, ImageFile]:
        from lazylayer_prefetch_entrypoint.elf import read_needs

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
        return needed
