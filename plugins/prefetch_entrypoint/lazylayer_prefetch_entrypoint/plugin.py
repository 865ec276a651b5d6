"""The plugin: its options, and when it does what."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated

import msgspec

from lazylayer import hookimpl
from lazylayer.api.settings import Settings

if TYPE_CHECKING:
    from lazylayer.api.opened import OpenedImage, OpenedLayer
    from lazylayer.api.tree import Entry

__all__ = ["NAME", "Options", "PrefetchEntrypoint"]

NAME = "prefetch_entrypoint"


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
        import lazylayer_prefetch_entrypoint.prefetch  # noqa: F401

    @hookimpl
    def lazylayer_prefetch_image(self, image: OpenedImage) -> None:
        """Watches for programs and modules; fetches that of the image, unless it says itself what to prefetch."""
        if not self._options.max_bytes:
            return
        from lazylayer_prefetch_entrypoint.prefetch import Prefetch

        prefetch = Prefetch(image, self._options.max_bytes)

        def follow(layer: OpenedLayer, path: bytes, entry: Entry) -> None:
            prefetch.follow(image.file(layer, path, entry))

        for layer in image.layers:
            layer.watch_programs(NAME, functools.partial(follow, layer))  # type: ignore[attr-defined]
        if not any(layer.tree.prefetch_landmark is not None for layer in image.layers):
            prefetch.run()
